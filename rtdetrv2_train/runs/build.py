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
from rtdetrv2_train.runs.host_memory import keep_freed_memory
from rtdetrv2_train.runs.launching import devices_and_nodes
from rtdetrv2_train.training.checkpoint_files import WholeCheckpoints
from rtdetrv2_train.training.host_batch_norm import HostSyncBatchNorm
from rtdetrv2_train.training.recipe import AUTO, Recipe

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
    if settings["accumulate_grad_batches"] == AUTO:
        settings["accumulate_grad_batches"] = 1  # until the number of processes is known
    if settings["accelerator"] == "cpu":
        keep_freed_memory()
    if launched := devices_and_nodes():
        settings["devices"], settings["num_nodes"] = launched
    plugins = [*(settings.pop("plugins", None) or []), WholeCheckpoints()]
    if settings["sync_batchnorm"] and settings["accelerator"] == "cpu":
        settings["sync_batchnorm"] = False
        plugins.append(HostSyncBatchNorm())
    return cast(Trainer, instantiate(settings, plugins=plugins, **kwargs))


def build_recipe(config: DictConfig) -> Recipe:
    """The recipe without what others read from the same group."""
    settings = {key: value for key, value in plain(config).items() if key not in ("epochs", "max_device_batch_size")}
    return cast(Recipe, instantiate(settings, _convert_="all"))


def save_and_print_metrics(metrics: CocoMetrics, folder: Path) -> None:
    """Write ``metrics.json`` and print the twelve numbers and the table of classes."""
    path = folder / "metrics.json"
    metrics.save(path)
    print_metrics(metrics, saved_at=path)
