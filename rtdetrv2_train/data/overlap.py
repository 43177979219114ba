"""Many small reads: one after the other where files are in memory, overlapped where a disk is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_TRIED, _AT_ONCE, _THREADS = 256, 32, 8  # calls in a row, calls of a thread in a row, threads
_WAIT, _SHARE = 4e-5, 0.8  # seconds that a call waits at least, and as a share of its work


def overlapped(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """The results of a function, in order; an error comes in its place.

    Threads take over as soon as calls have mostly waited. Else they would only be in each other's way, as one of them
    runs at a time.

    Args:
        function: reads a file; may be called from several threads.
        items: its arguments.
    """
    for start in range(0, len(items), _TRIED):
        began, busy = time.perf_counter(), time.thread_time()
        results = []
        for item in items[start : start + _TRIED]:
            try:
                results.append(function(item))
            except Exception:
                yield from results
                raise
        busy = time.thread_time() - busy
        waited = time.perf_counter() - began - busy
        yield from results
        if waited > max(_WAIT * len(results), _SHARE * busy):
            yield from _in_threads(function, items[start + _TRIED :])
            return


def _in_threads(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    def several(start: int) -> list[_Result]:
        return [function(item) for item in items[start : start + _AT_ONCE]]

    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from chain.from_iterable(pool.map(several, range(0, len(items), _AT_ONCE)))
    finally:
        pool.shutdown(cancel_futures=True)
