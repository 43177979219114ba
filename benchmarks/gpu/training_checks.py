"""Whether short runs on a device do what they do on a CPU: AMP, NaN, resume, one process of DDP."""

from __future__ import annotations

import os
import socket
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed

from benchmarks.gpu.plan import Figures
from benchmarks.gpu.short_runs import STEPS_PER_EPOCH, Interrupted, ShortRun, StepObserver
from benchmarks.interruptions import largest_difference, state_in
from rtdetrv2_train import train
from rtdetrv2_train.types import Batch

LOSS_FALLS = {"last by first": 0.99}
_BROKEN_STEP = 2
_INTERRUPTED_AFTER = 6


def amp(folder: Path, device: str, precision: str, optimizer: str) -> Figures:
    """Loss of the first and last steps of a run in mixed precision, and the scale of the gradient scaler."""
    run = ShortRun(folder, device, 5 * STEPS_PER_EPOCH, precision, optimizer=optimizer)
    losses = run.fit()
    first, last = (statistics.mean(part) for part in (losses[:STEPS_PER_EPOCH], losses[-STEPS_PER_EPOCH:]))
    scaler = getattr(run.trainer.precision_plugin, "scaler", None)
    return {
        "precision": str(run.trainer.precision),
        "first loss": first,
        "last loss": last,
        "last by first": last / first,
        "scale": "none" if scaler is None else scaler.get_scale(),
        "steps taken": steps_of_optimizer(run),
    }


def steps_of_optimizer(run: ShortRun) -> int:
    """Steps that the optimizer has not left out."""
    return max(int(state["step"]) for state in run.trainer.optimizers[0].state.values())


class _BreaksImage(StepObserver):
    """Puts NaN into an image of one step, and remembers the weights before it and after it."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.run: ShortRun | None = None

    def changed(self, step: int, batch: Batch) -> Batch:
        assert self.run is not None
        if step in (_BROKEN_STEP, _BROKEN_STEP + 1):
            weights = self.run.module.model.state_dict()
            self.weights.append({name: tensor.clone() for name, tensor in weights.items()})
        if step != _BROKEN_STEP:
            return batch
        images = batch.images.float() / 255
        images[1, 0, 5, 5] = float("nan")
        return replace(batch, images=images)


def nan_is_skipped(folder: Path, device: str, optimizer: str) -> Figures:
    """A step whose images have NaN changes nothing, and is written down.

    ``changed`` counts the tensors that it changed, counters of BatchNorm excepted; ``not finite`` those with NaN.
    """
    observer = _BreaksImage()
    observer.run = run = ShortRun(folder, device, STEPS_PER_EPOCH, observer=observer, optimizer=optimizer)
    run.fit()
    before, after = observer.weights
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    state = run.module.state_dict().values()  # the EMA
    left_out = STEPS_PER_EPOCH - steps_of_optimizer(run)
    assert left_out == 1, f"{left_out} steps were left out, not 1"
    return {
        "changed": sum(not name.endswith("num_batches_tracked") for name in changed),
        "not finite": sum(int(not tensor.isfinite().all()) for tensor in state if tensor.is_floating_point()),
        "written down": len(list((folder / "nan_guard").glob("step_*.pt"))),
    }


NAN_CHANGES_NOTHING = {"changed": 0, "not finite": 0}


class _Crashes(StepObserver):
    def before_step(self, step: int) -> None:
        if step == _INTERRUPTED_AFTER:
            raise Interrupted


def resume(folder: Path, device: str) -> Figures:
    """Largest difference of all weights, EMA and moments between a run that was interrupted and one that was not.

    Kernels that are not deterministic, as that of the gradient of ``grid_sample``, make two equal runs differ, too.
    How much is measured beside it.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        states = [_straight(folder / name, device) for name in ("once", "twice")]
        settings: dict[str, Any] = {"checkpoint_every": _INTERRUPTED_AFTER}
        interrupted = ShortRun(folder / "interrupted", device, 2 * STEPS_PER_EPOCH, observer=_Crashes(), **settings)
        try:
            interrupted.fit()
        except Interrupted:
            resumed = ShortRun(folder / "interrupted", device, 2 * STEPS_PER_EPOCH, **settings)
        assert len(resumed.fit(resume=True)) == 2 * STEPS_PER_EPOCH - _INTERRUPTED_AFTER
    finally:
        torch.use_deterministic_algorithms(False)
    noise = largest_difference(*states)
    found = largest_difference(states[0], state_in(resumed.last_checkpoint))
    verdict = "bit-equal" if found == 0 else "as close as an equal run" if found <= 10 * noise else "not the same"
    return {"difference": found, "of an equal run": noise, "verdict": verdict, "excess": max(found - 10 * noise, 0.0)}


NO_FURTHER_THAN_AN_EQUAL_RUN = {"excess": 0.0}


def _straight(folder: Path, device: str) -> dict[str, Tensor]:
    run = ShortRun(folder, device, 2 * STEPS_PER_EPOCH)
    run.fit()
    return state_in(run.last_checkpoint)


def one_process_group(device: str) -> Figures:
    """A sum, a broadcast and a barrier in a process group of one process, over NCCL on a GPU."""
    backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    distributed.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", world_size=1, rank=0)
    try:
        given = torch.arange(1000.0, device=device)
        summed = given.clone()
        distributed.all_reduce(summed)
        distributed.broadcast(summed, 0)
        distributed.barrier()
        return {"backend": backend, "difference": float((summed - given).abs().max())}
    finally:
        distributed.destroy_process_group()


def run_of_one_rank(folder: Path, device: str) -> Figures:
    """A run of `rtdetrv2 train trainer=ddp` on one device, to its end."""
    trainer = ["trainer=ddp"] if torch.device(device).type == "cuda" else ["trainer=ddp_cpu"]
    small = ["model=nano", "model.image_size=[64,64]", "augment=light", "recipe.total_batch_size=4"]
    small += ["data=shapes", f"data.root={folder / 'shapes'}", "data.num_train=16", "data.num_val=4"]
    small += ["data.num_workers=0", "trainer.max_epochs=2", "~callbacks.pictures", "~callbacks.curves"]
    try:
        with mock.patch.dict(os.environ):  # Lightning leaves a rank there
            trained = train(*small, *trainer, "trainer.devices=1", f"run_folder={folder / 'run'}")
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    assert trained.metrics is not None
    return {"AP": trained.metrics.AP, "report written": (trained.folder / "report.html").is_file()}
