"""pixzip.runtime.engines.one_thread: BLAS has one thread while any block asks for it, and then what it had before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from conftest import model_picture
from threadpoolctl import threadpool_info, threadpool_limits
from tiny_stack import stack_model

import pixzip
from pixzip.runtime.engines import one_thread

WAIT_S = 60


def blas_threads() -> set[int]:
    """Of the BLAS libraries in this process."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def on_a_thread(work: Callable[[], object]) -> None:
    """A thread that ends: threadpoolctl lets no other change what a living one has set."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """Something to restore: the suite runs with one."""
    before = blas_threads()
    on_a_thread(lambda: threadpool_limits(3, user_api="blas"))
    assert blas_threads() == {3}
    yield
    on_a_thread(lambda: threadpool_limits(before.pop(), user_api="blas"))


def seen_in_overlapping(block: Callable[[], AbstractContextManager[object]]) -> list[set[int]]:
    """Threads of BLAS in a block, in another that begins within it and ends behind it, and after both."""
    seen, begun, ended = [], threading.Event(), threading.Event()

    def second() -> None:
        with block():
            begun.set()
            assert ended.wait(WAIT_S)
            seen.append(blas_threads())

    thread = threading.Thread(target=second)
    with block():
        thread.start()
        assert begun.wait(WAIT_S)
        seen.append(blas_threads())
    ended.set()
    thread.join(WAIT_S)
    return [*seen, blas_threads()]


def test_blocks_that_overlap_have_one_thread_and_leave_what_was_there() -> None:
    assert seen_in_overlapping(one_thread) == [{1}, {1}, {3}]
    assert seen_in_overlapping(one_thread) == [{1}, {1}, {3}]


def test_blocks_that_each_restore_what_they_found_fail_that_law() -> None:
    assert seen_in_overlapping(lambda: threadpool_limits(1, user_api="blas")) != [{1}, {1}, {3}]


def test_block_that_fails_leaves_what_was_there() -> None:
    with pytest.raises(KeyError), one_thread(), one_thread():
        raise KeyError
    assert blas_threads() == {3}


def test_calls_that_overlap_leave_what_was_there(tmp_path: Path) -> None:
    """Each waits in its first report of progress until all have begun; they end in another order."""
    model = tmp_path / "paper.safetensors"
    model.write_bytes(stack_model("pixelcnn", 0).data)
    together = threading.Barrier(3, timeout=WAIT_S)

    def meeting() -> Callable[[float], None]:
        met: list[float] = []

        def progress(fraction: float) -> None:
            if not met:
                met.append(fraction)
                together.wait()
            if fraction < 1:  # the end is said behind the work
                assert blas_threads() == {1}

        return progress

    pixels = model_picture(20, 24)
    jobs = [
        lambda: pixzip.sample(model, size=(9, 40), progress=meeting()),
        lambda: pixzip.complete(model, pixels, from_row=1, progress=meeting()),
        lambda: pixzip.compress(pixels, model=model, progress=meeting()),
    ]
    with ThreadPoolExecutor(3) as pool:
        for call in [pool.submit(job) for job in jobs]:
            call.result()
    assert blas_threads() == {3}
