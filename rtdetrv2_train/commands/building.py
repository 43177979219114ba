"""The pieces that training and evaluation share, built from the configuration."""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.evaluation.tables import print_metrics
from rtdetrv2_train.runs.configuration import build, plain
from rtdetrv2_train.runs.folder import METRICS_FILE
from rtdetrv2_train.runs.processes import devices_and_nodes, was_started_by_rank_zero
from rtdetrv2_train.system.allocator import keep_freed_memory
from rtdetrv2_train.training.atomic_checkpoint_io import AtomicCheckpointIO
from rtdetrv2_train.training.callbacks.nan_guard import NanGuard
from rtdetrv2_train.training.distributed import local_ranks
from rtdetrv2_train.training.recipe import AUTO, Recipe
from rtdetrv2_train.training.sync_batchnorm import CPUSyncBatchNorm

log = logging.getLogger(__name__)

_NOT_OF_TRAINER = {
    "gradient_clip_val": "recipe.max_gradient_norm",
    "gradient_clip_algorithm": "recipe.max_gradient_norm, which clips the norm",
    "callbacks": "callbacks",
    "logger": "logger",
    "default_root_dir": "run_folder",
    "enable_checkpointing": "~callbacks.checkpoint",
}
"""Arguments of Lightning's Trainer that this project gives itself, and the key to use instead."""


def quiet_libraries() -> None:
    """Leave logging to Hydra's handlers, and drop warnings that a user can do nothing about."""
    logging.getLogger("lightning.pytorch").handlers.clear()
    logging.getLogger("lightning.fabric").handlers.clear()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "isinstance.treespec, LeafSpec",
        ".*smaller than the logging interval",
        ".*does not have many workers",
        r"Found \d+ module\(s\) in eval mode",  # BatchNorm of frozen parts
        ".*your dataloader is not resumable",  # the data module is
        "Checkpoint directory .* exists",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")


def resolved_trainer(config: DictConfig) -> dict[str, Any]:
    """The settings of Lightning's Trainer, with the device and the precision that ``auto`` stands for here.

    Where torchrun or SLURM has started the ranks, their number is what they say.

    Args:
        config: ``conf/trainer/*.yaml``.

    Raises:
        UserError: if an argument is unknown or not to be given here, or a GPU is asked for and there is none.
    """
    settings: dict[str, Any] = plain(config)
    known = [*inspect.signature(Trainer.__init__).parameters, "_target_"]
    for key in settings:
        if key in _NOT_OF_TRAINER:
            raise UserError(f"trainer.{key} has no effect here: use {_NOT_OF_TRAINER[key]}")
        if key not in known:
            raise UserError(f"Lightning's Trainer takes no '{key}': {nearest(key, known)}leave out trainer.{key}")
    if settings["accelerator"] == "auto":
        settings["accelerator"] = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = settings["accelerator"] in ("gpu", "cuda")
    if on_gpu and not torch.cuda.is_available():
        raise UserError("trainer.accelerator asks for a GPU, but PyTorch finds none here: use trainer=cpu")
    if settings["precision"] == "auto":
        mixed = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "16-mixed"
        settings["precision"] = mixed if on_gpu else "32-true"
    if settings["accumulate_grad_batches"] == AUTO:
        settings["accumulate_grad_batches"] = 1  # until the number of devices is known
    if settings["check_val_every_n_epoch"] == AUTO:
        settings["check_val_every_n_epoch"] = 1  # until the length of an epoch is known
    if launched := devices_and_nodes():
        settings["devices"], settings["num_nodes"] = launched
    return settings


def build_trainer(settings: dict[str, Any], **kwargs: Any) -> Trainer:
    """Lightning's Trainer.

    Args:
        settings: of :func:`resolved_trainer`.
        kwargs: further arguments of the Trainer.
    """
    settings = dict(settings)
    plugins = [*(settings.pop("plugins", None) or []), AtomicCheckpointIO()]
    if settings["accelerator"] == "cpu":
        keep_freed_memory()
        if settings["sync_batchnorm"]:
            settings["sync_batchnorm"] = False
            plugins.append(CPUSyncBatchNorm())
    return cast(Trainer, build(settings, plugins=plugins, **kwargs))


@contextmanager
def other_ranks(command: str, config: DictConfig, settings: dict[str, Any]) -> Iterator[None]:
    """Within this context the other ranks of a run on this machine do the same; afterwards they have ended.

    Args:
        command: ``train`` or ``evaluate``.
        config: what they do; they take it as it is, and never see the command line.
        settings: of :func:`resolved_trainer`.
    """
    world_size = 1 if devices_and_nodes() or was_started_by_rank_zero() else _devices(settings)
    if world_size == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        path = Path(folder, "config.yaml")
        path.write_text(OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")
        worker = [sys.executable, "-m", "rtdetrv2_train.commands.ddp_worker", command, str(path)]
        with local_ranks(world_size, worker):
            yield


def _devices(settings: dict[str, Any]) -> int:
    """How many devices of this machine the settings ask for."""
    from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator

    devices = settings["devices"]
    if settings["accelerator"] == "cpu":
        return 1 if devices == AUTO else int(CPUAccelerator.parse_devices(devices))
    return (
        CUDAAccelerator.auto_device_count() if devices == AUTO else len(CUDAAccelerator.parse_devices(devices) or [0])
    )


def ordered(callbacks: Iterable[Callback]) -> list[Callback]:
    """Callbacks in an order that works, whatever that of the configuration: what undoes steps acts before the EMA."""
    return sorted(callbacks, key=lambda callback: not isinstance(callback, NanGuard))


def build_recipe(config: DictConfig) -> Recipe:
    """The recipe without what others read from the same group."""
    others = ("epochs", "least_steps", "max_batch_size_per_device", "second_stage_epoch")
    return cast(Recipe, build({key: value for key, value in plain(config).items() if key not in others}))


def save_and_print_metrics(metrics: CocoMetrics, folder: Path) -> None:
    """Write ``metrics.json`` and print the twelve numbers and the table of classes."""
    path = folder / METRICS_FILE
    metrics.save(path)
    print_metrics(metrics, saved_at=path)
