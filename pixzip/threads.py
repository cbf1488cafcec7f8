"""Pieces of work → their results in order, side by side on threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

#: Pieces that are handed to threads at once: each that waits takes 3 kB, and a small file may have a million tiles.
_HANDED_OUT = 1024

_Piece = TypeVar("_Piece")
_Made = TypeVar("_Made")


def side_by_side(work: Callable[[_Piece], _Made], pieces: Sequence[_Piece], threads: int) -> list[_Made]:
    """Results of work on all pieces, in their order."""
    if min(threads, len(pieces)) <= 1:
        return [work(piece) for piece in pieces]
    some = [pieces[i : i + _HANDED_OUT] for i in range(0, len(pieces), _HANDED_OUT)]
    with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
        return [made for few in some for made in pool.map(work, few)]
