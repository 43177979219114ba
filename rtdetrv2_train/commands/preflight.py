"""A look at the keys, values and paths that a command is given, before anything heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtdetrv2_train.checkpoints.sources import check_checkpoint_source
from rtdetrv2_train.data.paths import check_data_paths, checked_part, paths_of
from rtdetrv2_train.runs.configuration import plain
from rtdetrv2_train.runs.configuration_errors import check_keys
from rtdetrv2_train.runs.folder import newest_run, run_folder_of
from rtdetrv2_train.runs.values import check_values

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_settings(config: DictConfig, command: str) -> None:
    """Check everything that takes no time to check; a size given as one number becomes that of a square.

    Args:
        config: as composed.
        command: such as ``train``.

    Raises:
        UserError: if a key is unknown, a value makes no sense, or a path is missing.
    """
    check_keys(config, command)
    check_values(config)
    check_paths(config)


def check_paths(config: DictConfig) -> None:
    """Check that the checkpoints and the data set that a configuration names are there.

    Args:
        config: as composed for any command.

    Raises:
        UserError: if one is missing; the message names it and the way out.
    """
    for key in ("run", "checkpoint", "init_from", "resume"):
        value = config.get(key)
        if value is not None and not (key == "resume" and value == "auto"):
            check_checkpoint_source(str(newest_run(value)) if key == "run" else str(value))
    data: Any = config.get("data")
    source = config.get("run") or config.get("checkpoint") or config.get("resume")
    if data is None or (source and (source == "auto" or run_folder_of(newest_run(source)))):  # a run brings its data
        return
    if data._target_.endswith(".CocoDataModule"):
        parts = ("val",) if "checkpoint" in config and data.get("val") else ("train", "val")
        given = plain(data)
        named = [path for part in parts for path in paths_of(checked_part(part, given.get(part)))]
        check_data_paths(data.root, named)
