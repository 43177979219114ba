"""``rtdetrv2 export``: write a trained detector for other software."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.export.formats import FORMATS
from rtdetrv2_train.inference.loading import restore
from rtdetrv2_train.runs.folder import newest_run, run_folder_of


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Export as configured."""
    export(config)


def export(config: DictConfig) -> Path:
    """Write a run's or a checkpoint's detector in the format that the configuration names, and say where.

    Args:
        config: as composed from ``conf/export.yaml``.

    Returns:
        the folder or file written.

    Raises:
        UserError: if there is nothing to export, or the format cannot express the model.
    """
    if not (config.run or config.checkpoint):
        raise UserError("nothing to export: give run=runs/... or checkpoint=...")
    source = str(newest_run(config.run)) if config.run else str(config.checkpoint)
    write = FORMATS.get(config.format)
    if write is None:
        raise UserError(
            f"there is no format={config.format}: {nearest(str(config.format), FORMATS)}use {' or '.join(FORMATS)}"
        )
    output = _output(config.output, source, config.format)
    detector = restore(read_checkpoint(source), config.get("model"), config.num_eval_layers, config.class_names)
    told = write(detector, output)
    for name, value in told.items():
        shown = os.path.relpath(value) if isinstance(value, Path) else str(value)
        print_line(f"{name:40} {shown}")
    return next(value for value in told.values() if isinstance(value, Path))


def _output(output: str | None, source: str, format_name: str) -> Path:
    if output:
        return Path(output)
    folder = run_folder_of(source)
    if folder is None:
        raise UserError(f"'{source}' belongs to no run, so there is no place for its export: give output=FOLDER")
    return folder / "export" / format_name
