"""The composed configuration: joined with that of an earlier run, printed, and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.syntax import Syntax

from rtdetrv2_train.runs.folders import CONFIG_FILE
from rtdetrv2_train.weights.saving import save_text


def save_and_print(config: DictConfig, show: bool = True) -> None:
    """Save the configuration in the run's folder, every interpolation resolved, and print it if ``show``."""
    text = OmegaConf.to_yaml(config, resolve=True)
    save_text(Path(config.run_folder) / CONFIG_FILE, text)
    if show:
        Console().print(Syntax(text, "yaml", background_color="default"))


def with_saved(config: DictConfig, folder: Path, sections: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Take sections from the configuration of an earlier run, except what the command line says otherwise.

    Args:
        config: as composed now.
        folder: of the earlier run.
        sections: top-level keys to take from it.
        overrides: those of the command line, as Hydra saw them.

    Returns:
        a new configuration.
    """
    saved = cast(DictConfig, OmegaConf.load(folder / CONFIG_FILE))
    groups = {"model", "data", "augment", "recipe", "trainer", "logger", "callbacks", "experiment"}
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = keys_of(overrides)
    joined = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(config, resolve=False)))
    OmegaConf.set_struct(joined, False)
    for section in sections:
        if section in saved and not (section in groups and section in keys):
            joined[section] = saved[section]
    for override in parsed:
        key = override.key_or_group
        if key.partition(".")[0] not in sections or key in groups:
            continue
        if override.is_delete():
            section, _, name = key.rpartition(".")
            OmegaConf.select(joined, section).pop(name, None)
        else:
            OmegaConf.update(joined, key, OmegaConf.select(config, key), force_add=True)
    return joined


def keys_of(overrides: Sequence[str]) -> list[str]:
    """What each override is about: a key with dots, or a group."""
    return [override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))]


def command_line_overrides() -> list[str]:
    """The overrides of this job, multirun's choices included."""
    return list(HydraConfig.get().overrides.task)


def plain(config: Any) -> Any:
    """Plain dictionaries and lists, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)
