"""The data set that a run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.runs.configuration import build, composed, with_saved


def data_of_run(folder: Path) -> CocoDataModule:
    """The data module of a run, its annotations read.

    Args:
        folder: of the run.

    Raises:
        UserError: if the data set is not where it was.
    """
    with composed("eval", ()) as defaults:
        config = with_saved(defaults, folder, ("model", "data", "augment", "recipe"), ())
    data = cast(CocoDataModule, build(config.data, batch_size=1, multiscale=None))
    data.load()
    return data
