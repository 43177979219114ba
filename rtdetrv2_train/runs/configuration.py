"""The configuration of a run: composed, joined with that of an earlier run, and saved. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import save_text
from rtdetrv2_train.runs.configuration_errors import explain, user_error_within
from rtdetrv2_train.runs.folder import CONFIG_FILE, config_folder
from rtdetrv2_train.runs.processes import is_rank_zero, shared_run_folder
from rtdetrv2_train.runs.trusted_classes import check_classes

_GROUPS = ("model", "data", "augment", "recipe", "trainer", "logger", "callbacks", "experiment")


def register_resolvers() -> None:
    """Register what ``conf/`` asks for as ``${run_folder:...}`` and ``${rank_zero_only:...}``."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("rank_zero_only", _rank_zero_only, replace=True)


def _run_folder(resume: str | None, new: str, _root_: Any) -> str:
    """The folder of the run to resume, which continues there; else a new one, the same for all processes."""
    from rtdetrv2_train.runs.resume import run_to_resume

    return shared_run_folder(new, run_to_resume(resume, Path(new).parent, _root_) if resume else None)


def _rank_zero_only(value: str, otherwise: str | None) -> str | None:
    """What rank 0 alone is to write, and what the other ranks have instead."""
    return value if is_rank_zero() else otherwise


@contextmanager
def composed(name: str, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The configuration of a command outside of its Hydra application, for use from Python.

    Args:
        name: of the command, such as ``train``.
        overrides: as on the command line.

    Raises:
        UserError: if a key or a choice does not exist.
    """
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    register_resolvers()
    with own_hydra():
        try:
            config = compose(name, overrides=list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise user_error_within(error) or UserError(explain(error, config_folder(), name)) from error
        with _unlocked(config.hydra):
            config.hydra.runtime.output_dir = config.hydra.run.dir
        HydraConfig.instance().set_config(config)  # a copy, which ${hydra:...} refers to
        with _unlocked(config):
            del config["hydra"]
        yield config


@contextmanager
def own_hydra() -> Iterator[None]:
    """Initialise Hydra on our configuration, and leave an application around us as it was."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    running, version = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running
        VersionBase.instance().version_base = version


def save_config(config: DictConfig) -> None:
    """Save the configuration in the run's folder, every interpolation resolved."""
    save_text(Path(config.run_folder) / CONFIG_FILE, OmegaConf.to_yaml(config, resolve=True))


def with_saved(config: DictConfig, folder: Path, sections: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Take sections from the configuration of an earlier run, except what the command line says otherwise.

    Args:
        config: as composed now.
        folder: of the earlier run.
        sections: top-level keys to take from it.
        overrides: those of the command line, as Hydra saw them.

    Returns:
        a new configuration.

    Raises:
        UserError: if the saved configuration names a class that a file may not name.
    """
    path = folder / CONFIG_FILE
    saved = cast(DictConfig, OmegaConf.load(path))
    parsed = _parsed(overrides)
    keys = keys_of(overrides)
    joined = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(config, resolve=False)))
    OmegaConf.set_struct(joined, False)
    for section in sections:
        if section in saved and not (section in _GROUPS and section in keys):
            joined[section] = saved[section]
    for override in parsed:
        key = override.key_or_group
        if key.partition(".")[0] not in sections or key in _GROUPS:
            continue
        if override.is_delete():
            section, _, name = key.rpartition(".")
            OmegaConf.select(joined, section).pop(name, None)
        else:
            OmegaConf.update(joined, key, OmegaConf.select(config, key), force_add=True)
    check_classes(plain(joined), plain(config), str(path))
    return joined


def keys_of(overrides: Sequence[str]) -> list[str]:
    """What each override is about: a key with dots, or a group."""
    return [override.key_or_group for override in _parsed(overrides)]


def command_line_overrides() -> list[str]:
    """The overrides of this job, multirun's choices included."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def plain(config: Any) -> Any:
    """Plain dictionaries and lists, every interpolation resolved."""
    return OmegaConf.to_container(config, resolve=True)


def build(config: Any, **further: Any) -> Any:
    """The object that a configuration with ``_target_`` describes.

    Args:
        config: a node of the configuration, or plain data.
        further: arguments besides those of the configuration.
    """
    from hydra.utils import instantiate

    return instantiate(config, _convert_="all", **further)


def _parsed(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(overrides))


@contextmanager
def _unlocked(config: DictConfig) -> Iterator[None]:
    from omegaconf import open_dict, read_write

    with read_write(config), open_dict(config):
        yield
