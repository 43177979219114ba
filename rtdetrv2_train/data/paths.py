"""Where a data set lies. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rtdetrv2_train.errors import UserError


def check_data_paths(root: str | Path, paths: Iterable[str | Path]) -> None:
    """Check that the files of a data set are where they should be.

    Args:
        root: folder that the paths are relative to.
        paths: of folders of images and annotation files.

    Raises:
        UserError: if one is missing; the message names it.
    """
    for path in paths:
        if not (Path(root) / path).exists():
            raise UserError(
                f"no data set at '{root}': '{path}' is missing. Put COCO there as datasets/README.md says, or point "
                "data.root, data.train and data.val at your own set (data.val=null holds out a tenth of data.train)"
            )
