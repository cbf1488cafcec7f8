"""pixzip.batch: results in order, nothing ahead of its turn, memory never beyond the room, whoever fails."""

from __future__ import annotations

import threading
import time

import pytest

from pixzip.batch import Room, in_order
from pixzip.commands.arguments import Files
from pixzip.commands.each import room_for
from pixzip.commands.options import Settings
from pixzip.errors import LimitError
from pixzip.memory import MIB, PROCESS_BYTES, THREAD_BYTES, Need


def need(mib: int) -> Need:
    """Work that takes so many MiB beside the process, its thread's arena among them."""
    return Need("work", 0, 0, 1, PROCESS_BYTES - THREAD_BYTES + mib * MIB)


def nothing() -> None:
    """What is called while waiting."""


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    def job(i: int) -> int:
        time.sleep(0.002 * (i * 7 % 5))
        return i

    assert list(in_order(((lambda i=i: job(i)) for i in range(40)), threads)) == list(range(40))


@pytest.mark.parametrize("threads", [1, 3])
def test_jobs_are_taken_up_no_further_than_two_a_thread_ahead(threads: int) -> None:
    begun = []

    def jobs():  # type: ignore[no-untyped-def]
        for i in range(100):
            begun.append(i)
            yield lambda i=i: i

    for i in in_order(jobs(), threads):
        assert len(begun) <= i + 2 * threads


def test_failure_ends_the_jobs_at_work_and_gives_up_the_rest() -> None:
    ended, lock = [], threading.Lock()

    def job(i: int) -> int:
        if i == 3:
            raise KeyError(i)
        time.sleep(0.01)
        with lock:
            ended.append(i)
        return i

    with pytest.raises(KeyError):
        list(in_order(((lambda i=i: job(i)) for i in range(100)), 2))
    count = len(ended)
    assert count < 12
    time.sleep(0.05)
    assert len(ended) == count


@pytest.mark.parametrize("sizes", [[10] * 30, [10, 90, 10, 40, 250, 10, 60, 10] * 3])
def test_room_is_never_overfull(sizes: list[int]) -> None:
    room = Room(4, len(sizes), PROCESS_BYTES + 100 * MIB)
    most, used, lock = [0], [0], threading.Lock()

    def job(size: int) -> None:
        try:
            with room.taken(need(size), nothing) as share:
                assert share.max_memory is not None
                assert need(size).bytes() <= share.max_memory <= PROCESS_BYTES + 100 * MIB
                with lock:
                    used[0] += size
                    most[0] = max(most[0], used[0])
                time.sleep(0.002)
                with lock:
                    used[0] -= size
        except LimitError:
            assert size > 100

    list(in_order(((lambda size=size: job(size)) for size in sizes), 4))
    assert 40 <= most[0] <= 100


def test_small_work_has_one_thread_and_large_work_all() -> None:
    room = Room(8, 100, PROCESS_BYTES + 80 * MIB)
    for size, threads in ((5, 1), (10, 1), (15, 2), (75, 8)):
        with room.taken(need(size), nothing) as share:
            assert share.threads == threads
    with Room(8, 2, None).taken(need(5), nothing) as share:
        assert (share.threads, share.max_memory) == (4, None)
    for jobs, threads in ((1, 8), (2, 4), (8, 1), (20, 1)):
        assert Room(8, 100, None, jobs).side_by_side == jobs
        with Room(8, 100, None, jobs).taken(need(5), nothing) as share:
            assert share.threads == threads
    with Room(2, 5, None).taken(need(10**6), nothing) as share:  # no limit was given: alone, but not refused
        assert share.threads == 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_file_has_the_threads_that_were_asked_for(device: str) -> None:
    """With a GPU many files are in work, and no file has more threads for what the CPU does."""
    settings = Settings(None, device, 2, None, 10**6, 10**15)
    for count, threads in ((1, 2), (2, 1), (300, 1)):
        room = room_for(settings, Files([str(i) for i in range(count)], {}))
        with settings.let_in(room, need(5), nothing) as share:
            assert share.threads == threads
        assert room.side_by_side == min(count, 256 if device == "cuda" else 2)


def test_waiting_for_room_can_be_called_off() -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    room = Room(2, 2, PROCESS_BYTES + 10 * MIB)
    with room.taken(need(10), nothing), pytest.raises(Stopped), room.taken(need(10), stop):
        pass
    with room.taken(need(10), nothing):
        pass
