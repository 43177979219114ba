"""Time and memory on a device."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def synchronise(device: str) -> None:
    """Wait for a device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def latencies(function: Callable[[], Any], device: str, repeats: int, warm_up: int = 3) -> list[float]:
    """Milliseconds of each call, from its start to when the device has done everything, after some calls to warm up."""
    taken = []
    for _ in range(warm_up + repeats):
        synchronise(device)
        began = time.perf_counter()
        function()
        synchronise(device)
        taken.append(1000 * (time.perf_counter() - began))
    return taken[warm_up:]


def latency(function: Callable[[], Any], device: str, repeats: int, warm_up: int = 3) -> float:
    """The median of :func:`latencies`."""
    return statistics.median(latencies(function, device, repeats, warm_up))


def milliseconds_each(function: Callable[[], Any], device: str, calls: int) -> float:
    """Milliseconds of each of some calls in a row, between which nothing waits for the device."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(calls):
        function()
    synchronise(device)
    return 1000 * (time.perf_counter() - began) / calls


def allocated_megabytes(device: str) -> float:
    """Memory that tensors have on the device; of a CPU, 0."""
    return torch.cuda.memory_allocated() / 2**20 if torch.device(device).type == "cuda" else 0.0


def peak_megabytes(function: Callable[[], Any], device: str) -> float:
    """The most memory that tensors have on the device while a function runs; of a CPU, that of the process so far."""
    if torch.device(device).type != "cuda":
        function()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20
