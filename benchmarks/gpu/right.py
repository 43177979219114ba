"""Whether a GPU computes what a CPU does."""

from __future__ import annotations

import os

from benchmarks.gpu import memory_checks, numbers, training_checks
from benchmarks.gpu.plan import Figures, Measurement, Plan
from rtdetrv2_train.ops.assignment import solves_on
from tests.support import MODELS

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic products, before CUDA starts

_FIRST = ("r18vd", "r50vd")
_NOTHING_CHANGED = {"changed": 0}


def measurements(plan: Plan) -> list[Measurement]:
    """The checks, those of two models before those of the others."""
    names = ("r18vd",) if plan.dry_run else (*_FIRST, *(name for name in MODELS if name not in _FIRST))
    references = [_reference(plan, name) for name in names]
    return [*references[:2], _assignment(plan), *_of_training(plan), *references[2:]]


def _reference(plan: Plan, name: str) -> Measurement:
    return Measurement(
        f"reference {name}", lambda: numbers.reference_differences(name, plan.device), numbers.bounds(name), limit=30
    )


def _assignment(plan: Plan) -> Measurement:
    def measure() -> Figures:
        plan.needs_gpu("the compiled kernel")
        from benchmarks import assignment  # on a CPU it tells Triton to interpret

        wrong = assignment.check(2000, seed=0)
        return {"wrong": sum(wrong.values()), "by the kernel": solves_on(plan.device), "wrong of each kind": wrong}

    return Measurement("assignments as SciPy's", measure, {"wrong": 0})


def _amp(plan: Plan, precision: str, optimizer: str) -> Measurement:
    def measure() -> Figures:
        if precision == "16-mixed":
            plan.needs_gpu("float16 with its scaler")
        return training_checks.amp(plan.folder / f"{precision}-{optimizer}", plan.device, precision, optimizer)

    return Measurement(f"AMP {precision}, {optimizer}", measure, training_checks.LOSS_FALLS)


def _nan(plan: Plan, optimizer: str) -> Measurement:
    def measure() -> Figures:
        return training_checks.nan_is_skipped(plan.folder / f"nan-{optimizer}", plan.device, optimizer)

    return Measurement(f"a step with NaN, {optimizer}", measure, training_checks.NAN_CHANGES_NOTHING)


def _of_training(plan: Plan) -> list[Measurement]:
    folder, device = plan.folder, plan.device
    split, fits = (("nano", 64, 6), ("nano", 64, 8)) if plan.dry_run else (("r18vd", 320, 8), ("r18vd", 640, 512))
    return [
        _amp(plan, "bf16-mixed", "muon"),
        _amp(plan, "16-mixed", "muon"),
        _amp(plan, "16-mixed", "adamw"),
        _nan(plan, "muon"),
        _nan(plan, "adamw"),
        Measurement(
            "a batch split on OOM", lambda: memory_checks.split_gradient(device, *split), memory_checks.SAME_GRADIENT
        ),
        Measurement(
            "resume",
            lambda: training_checks.resume(folder / "resume", device),
            training_checks.NO_FURTHER_THAN_AN_EQUAL_RUN,
        ),
        Measurement("a process group of one", lambda: training_checks.one_process_group(device), {"difference": 0}),
        Measurement("a run of one rank", lambda: training_checks.run_of_one_rank(folder / "ddp", device)),
        Measurement(
            "the batch that fits",
            lambda: memory_checks.batch_that_fits(folder / "fits", device, *fits),
            _NOTHING_CHANGED,
        ),
    ]
