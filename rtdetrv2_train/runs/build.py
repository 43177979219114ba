"""The pieces that training and evaluation share, built from the configuration."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.evaluation.table import print_metrics
from rtdetrv2_train.runs.configuration import plain
from rtdetrv2_train.runs.launching import devices_and_nodes
from rtdetrv2_train.training.checkpoint_files import WholeCheckpoints
from rtdetrv2_train.training.recipe import Recipe

log = logging.getLogger(__name__)


def quiet_libraries() -> None:
    """Leave logging to Hydra's handlers, and drop warnings that a user can do nothing about."""
    logging.getLogger("lightning.pytorch").handlers.clear()
    logging.getLogger("lightning.fabric").handlers.clear()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        "isinstance.treespec, LeafSpec",
        ".*smaller than the logging interval",
        ".*does not have many workers",
        ".*your dataloader is not resumable",  # the data module is
    ):
        warnings.filterwarnings("ignore", message=f".*{message}")


def build_trainer(config: DictConfig, **kwargs: Any) -> Trainer:
    """Lightning's Trainer, with the device and the precision that ``auto`` stands for here.

    Where torchrun or SLURM has started the processes, their number is what they say.
    """
    settings = plain(config)
    if settings["accelerator"] == "auto":
        settings["accelerator"] = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = settings["accelerator"] in ("gpu", "cuda")
    if on_gpu and not torch.cuda.is_available():
        raise UserError("trainer.accelerator asks for a GPU, but PyTorch finds none here: use trainer=cpu")
    if settings["precision"] == "auto":
        mixed = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "16-mixed"
        settings["precision"] = mixed if on_gpu else "32-true"
    if launched := devices_and_nodes():
        settings["devices"], settings["num_nodes"] = launched
    plugins = [*(settings.pop("plugins", None) or []), WholeCheckpoints()]
    return cast(Trainer, instantiate(settings, plugins=plugins, **kwargs))


def build_recipe(config: DictConfig) -> Recipe:
    """The recipe without what others read from the same group: the length of the run and the batch size."""
    settings = {key: value for key, value in plain(config).items() if key not in ("epochs", "total_batch_size")}
    return cast(Recipe, instantiate(settings, _convert_="all"))


def save_and_print_metrics(metrics: CocoMetrics, folder: Path) -> None:
    """Write ``metrics.json`` and print the twelve numbers and the table of classes."""
    path = folder / "metrics.json"
    metrics.save(path)
    print_metrics(metrics, saved_at=path)


def per_process_batch_size(total_batch_size: int, num_processes: int, accumulated: int) -> int:
    """Images of one batch of one process.

    Raises:
        UserError: if the total cannot be shared evenly.
    """
    parts = num_processes * accumulated
    if total_batch_size < parts or total_batch_size % parts:
        below, above = total_batch_size // parts * parts, (total_batch_size // parts + 1) * parts
        fitting = " or ".join(str(size) for size in (below, above) if size)
        raise UserError(
            f"recipe.total_batch_size={total_batch_size} cannot be shared by {num_processes} processes with "
            f"{accumulated} accumulated batches each: use {fitting}"
        )
    return total_batch_size // parts
