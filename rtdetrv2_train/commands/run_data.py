"""The data set that a run was trained on, and the one that something is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from omegaconf import DictConfig

from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.runs.configuration import build, composed, with_saved
from rtdetrv2_train.runs.folder import SPLIT_FILE, run_folder_of


def data_of_run(folder: Path) -> CocoDataModule:
    """The data module of a run, its annotations read.

    Args:
        folder: of the run.

    Raises:
        UserError: if the data set is not where it was.
    """
    with composed("eval", ()) as defaults:
        config = with_saved(defaults, folder, ("model", "data", "augment", "recipe"), ())
    data = cast(CocoDataModule, build(config.data, batch_size=1, multiscale=None, split_file=folder / SPLIT_FILE))
    data.load()
    return data


def evaluation_data(config: DictConfig, source: str) -> CocoDataModule:
    """The data module to measure a model on, its annotations read; the training part need not be there.

    Args:
        config: as composed from ``conf/eval.yaml``.
        source: of the model; where it belongs to a run, what that run has held out is the validation part.

    Raises:
        UserError: if the data set is missing or cannot be understood.
    """
    folder = run_folder_of(source)
    split_file = folder / SPLIT_FILE if folder else None
    data = cast(CocoDataModule, build(config.data, batch_size=1, multiscale=None, split_file=split_file))
    data.leave_out_training_set()
    data.load()
    return data
