"""Which operations and kernels the time of a training step goes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.plan import Figures
from benchmarks.gpu.timing import synchronise

_MOST = 15
_WARM_UP, _STEPS = 2, 2
_LONGEST_NAME = 70


def largest(step: Callable[[], Any], device: str) -> Figures:
    """The largest operations, and on a GPU the largest kernels, each with its share of the device's time.

    An operation's time is that of the kernels that it starts itself. On a CPU it is its own time.
    """
    on_gpu = torch.device(device).type == "cuda"
    for _ in range(_WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as recorded:
        for _ in range(_STEPS):
            step()
        synchronise(device)
    averages = recorded.key_averages()
    operations = [event for event in averages if event.device_type == DeviceType.CPU]
    if not on_gpu:
        return {"operations": _table([(event.key, event.self_cpu_time_total, event.count) for event in operations])}
    kernels = [it for it in averages if it.device_type == DeviceType.CUDA and not it.is_user_annotation]
    return {
        "device ms a step": sum(event.self_device_time_total for event in kernels) / 1000 / _STEPS,
        "kernels a step": sum(event.count for event in kernels) / _STEPS,
        "operations": _table([(event.key, event.self_device_time_total, event.count) for event in operations]),
        "kernels": _table([(event.key, event.self_device_time_total, event.count) for event in kernels]),
    }


def _table(rows: list[tuple[str, float, int]]) -> list[str]:
    """The largest rows of name, microseconds and calls, as text."""
    whole = max(sum(microseconds for _, microseconds, _ in rows), 1e-9)
    chosen = sorted(rows, key=lambda row: -row[1])[:_MOST]
    return [
        f"{microseconds / whole:.1%} {name[:_LONGEST_NAME]} ({count // _STEPS}x, {microseconds / 1000 / _STEPS:.2f} ms)"
        for name, microseconds, count in chosen
    ]
