from __future__ import annotations

import threading
import time

import pytest

from rtdetrv2_train.data.overlap import overlapped


def wait(number: int) -> tuple[int, int]:
    time.sleep(0.001)
    return number, threading.get_ident()


def test_calls_that_wait_are_overlapped_and_stay_in_order() -> None:
    began = time.perf_counter()
    results = list(overlapped(wait, range(2000)))
    seconds = time.perf_counter() - began
    assert [number for number, _ in results] == list(range(2000))
    assert len({thread for _, thread in results}) > 2
    assert seconds < 1.5, "one after the other they take more than 2 s"


def test_calls_that_do_not_wait_stay_in_this_thread() -> None:
    results = list(overlapped(lambda number: (number, threading.get_ident()), range(2000)))
    assert results == [(number, threading.get_ident()) for number in range(2000)]
    assert list(overlapped(wait, [])) == []


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("bad", [3, 700])
def test_an_error_ends_it(slow: bool, bad: int) -> None:
    def function(number: int) -> int:
        if number >= bad:
            raise ValueError(str(number))
        return wait(number)[0] if slow else number

    results: list[int] = []
    with pytest.raises(ValueError, match=f"^{bad}$"):
        results.extend(overlapped(function, range(2000)))
    assert results == list(range(len(results)))
    assert len(results) <= bad
