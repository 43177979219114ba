"""What a training step waits for, and how much of it a CUDA graph could hold.

Where SciPy solves the assignments it needs their costs on the host: one wait for a reason. Every other keeps the device
idle for none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import Setting
from benchmarks.gpu.capture import Captured, why_not
from benchmarks.gpu.plan import Figures, Measurement, Plan, Skipped
from benchmarks.gpu.short_runs import ShortRun, StepObserver
from benchmarks.gpu.steps import WholeStep, recorded_matcher
from benchmarks.gpu.timing import milliseconds_each
from benchmarks.gpu.waiting import WaitRecorder

STEPS = 2
_NOT_CAPTURED: list[str] = []
_STAGES = ("forward", "forward and loss", "up to the gradient", "all but the assignment", "everything")


def measurements(plan: Plan) -> list[Measurement]:
    """Waits first, then what a graph can hold."""
    name, size, batch = ("nano", 64, 2) if plan.dry_run else ("r18vd", 640, 4)
    return [
        Measurement("waits of a step", lambda: of_bare_step(name, size, batch, setting_of(plan))),
        *(
            Measurement(
                f"waits of a step by Lightning, {optimizer}",
                lambda optimizer=optimizer: of_lightning_step(plan.folder / optimizer, plan.device, optimizer),
            )
            for optimizer in ("muon", "adamw")
        ),
        *(
            Measurement(f"a CUDA graph of {stage}", lambda stage=stage: in_a_graph(plan, stage, name, size, batch))
            for stage in _STAGES
        ),
    ]


def setting_of(plan: Plan) -> Setting:
    """Training as the product does it: in bfloat16 on a GPU."""
    return Setting(plan.device, None if plan.dry_run else torch.bfloat16)


def of_bare_step(name: str, size: int, batch: int, setting: Setting) -> Figures:
    """Waits of the third and fourth step of a model, without Lightning."""
    step = WholeStep(name, size, batch, setting)
    for _ in range(2):
        step.train_step()
    with WaitRecorder(setting.device) as recorder:
        for _ in range(STEPS):
            step.train_step()
    return waits_of(recorder.waits)


class _Waits(StepObserver):
    """Records waits from the third step of a run on, the batch's way to the device included."""

    def __init__(self, device: str) -> None:
        self.recorder = WaitRecorder(device)

    def before_step(self, step: int) -> None:
        if step == 2:
            self.recorder.__enter__()
        elif step == 2 + STEPS:
            self.recorder.__exit__(None, None, None)


def of_lightning_step(folder: Path, device: str, optimizer: str) -> Figures:
    """Waits of a step of a run: with the batch's way to the device, `NanGuard`, `EMA` and `Checkpointing`."""
    observer = _Waits(device)
    ShortRun(folder, device, steps=3 + STEPS, observer=observer, optimizer=optimizer).fit()
    return waits_of(observer.recorder.waits)


def waits_of(waits: Counter[str]) -> Figures:
    """Waits of a step, and where they come from."""
    places = [f"{count / STEPS:g}x {place}" for place, count in waits.most_common()]
    return {"waits a step": sum(waits.values()) / STEPS, "places": places}


def in_a_graph(plan: Plan, stage: str, name: str, size: int, batch: int) -> Figures:
    """Whether a part of a step of a fixed batch can be captured, and what replaying it takes instead."""
    step = prepared(name, size, batch, setting_of(plan))
    if stage == _STAGES[-1]:
        return captured(plan, step.train_step)
    with recorded_matcher(step):
        return captured(plan, stages(step)[stage])


def captured(plan: Plan, function: Callable[[], Any]) -> Figures:
    """Whether a function can be captured. After one that could not a process captures no other."""
    function()
    plan.needs_gpu("CUDA graphs")
    if _NOT_CAPTURED:
        raise Skipped("a part of it cannot be captured")
    eager = milliseconds_each(function, plan.device, 5)
    try:
        graph = Captured(function)
    except RuntimeError as error:
        _NOT_CAPTURED.append(why_not(error))
        return {"captured": "no", "as": _NOT_CAPTURED[-1], "ms": eager}
    graph()
    return {"captured": "yes", "ms": eager, "ms replayed": milliseconds_each(graph, plan.device, 5)}


@cache
def prepared(name: str, size: int, batch: int, setting: Setting) -> WholeStep:
    """A step that may be captured, which needs an optimizer whose count of steps is on the device."""
    step = WholeStep(name, size, batch, setting)
    for group in step.optimizer.param_groups:
        group["capturable"] = True
    return step


def stages(step: WholeStep) -> dict[str, Callable[[], Any]]:
    """Ever more of a step."""

    def loss() -> Tensor:
        return step.loss(step.forward_pass())

    def gradient() -> None:
        loss().backward()
        step.optimizer.zero_grad()

    return dict(zip(_STAGES, (step.forward_pass, loss, gradient, step.train_step), strict=False))
