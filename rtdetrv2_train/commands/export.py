"""``rtdetrv2 export``: write a trained detector for other software."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from rtdetrv2_train.commands.deployment import check_choices, deploy_and_print, wish_of
from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.export.formats import CONVERSIONS, FORMATS
from rtdetrv2_train.inference.loading import load_detector
from rtdetrv2_train.runs.configuration import keys_of
from rtdetrv2_train.runs.folder import EXPORT_FOLDER, newest_run, run_folder_of

_DEPLOYMENT_KEYS = ("graph", "batch", "size", "precision", "sampling", "num_queries", "opset", "images", "verify")


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Export as configured."""
    given = keys_of(overrides)
    if config.format in CONVERSIONS and (useless := [key for key in _DEPLOYMENT_KEYS if key in given]):
        raise UserError(f"{useless[0]}= has no effect on format={config.format}: leave it out")
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
    known = [*FORMATS, *CONVERSIONS]
    if config.format not in known:
        raise UserError(f"there is no format={config.format}: {nearest(str(config.format), known)}use {_or(known)}")
    if config.format in FORMATS:
        check_choices(config)
    if config.output is None and run_folder_of(source) is None:
        raise UserError(f"'{source}' belongs to no run, so there is no place for its export: give output=FOLDER")
    detector = load_detector(source, config.get("model"), config.num_eval_layers, config.class_names, device="cpu")
    if config.format in FORMATS:
        wish = wish_of(config, detector.image_size)
        return deploy_and_print(detector, wish, _output(config, source, wish.name), run_folder_of(source), config)
    told = CONVERSIONS[config.format](detector, _output(config, source, config.format))
    for name, value in told.items():
        print_line(f"{name:40} {os.path.relpath(value) if isinstance(value, Path) else value}")
    return next(value for value in told.values() if isinstance(value, Path))


def _output(config: DictConfig, source: str, name: str) -> Path:
    return Path(config.output) if config.output else Path(run_folder_of(source) or "", EXPORT_FOLDER, name)


def _or(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
