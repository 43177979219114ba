"""The configuration of a run: composed, joined with that of an earlier run, and saved. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import save_text
from rtdetrv2_train.runs.configuration_errors import explain, user_error_within
from rtdetrv2_train.runs.folder import CONFIG_FILE, config_folder
from rtdetrv2_train.runs.trusted_classes import check_classes

_GROUPS = ("model", "data", "augment", "recipe", "trainer", "logger", "callbacks", "experiment")
# Where a missing key may have been left out on purpose; what is built from them has defaults of its own.
_COLLECTIONS = ("callbacks", "logger", "data", "augment.transforms", "augment.schedule", "model.parameter_rules")
_AS_SAVED = ("model.architecture",)  # the defaults are those of another model


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
    from hydra.errors import HydraException

    with own_hydra():
        try:
            config = compose(name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise user_error_within(error) or UserError(explain(error, config_folder(), name)) from error
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
    """Save the configuration in the run's folder, with its interpolations, and without the place of that folder."""
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    content["run_folder"] = None
    content.pop("resume", None)
    save_text(Path(config.run_folder) / CONFIG_FILE, OmegaConf.to_yaml(content))


def with_saved(config: DictConfig, folder: Path, sections: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Take sections from the configuration of an earlier run, except what the command line says otherwise.

    What was derived from other keys is derived again. Keys that the saved configuration lacks have their defaults. With
    ``experiment=`` the command line describes the whole run, and nothing is taken.

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
    saved = read_config(path)
    parsed = _parsed(overrides)
    keys = keys_of(overrides)
    if "experiment" in keys:
        return config
    joined: Any = OmegaConf.to_container(config, resolve=False)
    for section in sections:
        if section in _GROUPS and section in keys:
            continue
        if section in saved:
            joined[section] = _filled(saved[section], joined.get(section), section)
        elif section in ("callbacks", "logger"):  # the run has none
            joined.pop(section, None)
    joined = OmegaConf.create(joined)
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
    return cast(DictConfig, joined)


def read_config(path: Path) -> dict[str, Any]:
    """A saved configuration, with its interpolations.

    Raises:
        UserError: if the file cannot be read, or holds something else.
    """
    try:
        saved = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UserError(f"'{path}' cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(saved, DictConfig) or not saved:
        raise UserError(f"'{path}' is not the configuration of a run")
    return cast(dict[str, Any], OmegaConf.to_container(saved, resolve=False))


def differences(before: DictConfig, after: DictConfig, sections: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ between two configurations, and both values; None where there is no such key."""
    leaves = [dict(_leaves({name: plain(config).get(name) for name in sections}, "")) for config in (before, after)]
    names = [*leaves[0], *(name for name in leaves[1] if name not in leaves[0])]
    return {n: (leaves[0].get(n), leaves[1].get(n)) for n in names if leaves[0].get(n) != leaves[1].get(n)}


def not_followed(config: DictConfig, composed: DictConfig, overrides: Sequence[str]) -> dict[str, str]:
    """Keys that would follow from one that is overridden, had they not been given a value of their own; and that one.

    Args:
        config: of the run.
        composed: as composed now, which tells what follows from what.
        overrides: those of the command line.
    """
    follows = dict(_leaves(OmegaConf.to_container(composed, resolve=False), ""))
    found = {name: str(value)[2:-1] for name, value in follows.items() if str(value)[2:-1] in keys_of(overrides)}
    return {n: key for n, key in found.items() if OmegaConf.select(config, n) != OmegaConf.select(config, key)}


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

    Raises:
        UserError: if the object says that of a value, which Hydra would wrap.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(config, _convert_="all", **further)
    except InstantiationException as error:
        if cause := user_error_within(error):
            raise cause from error
        raise


def _filled(saved: Any, default: Any, key: str) -> Any:
    """What was saved, and defaults where it lacks keys: those that were added since, not those that were left out."""
    if not isinstance(saved, dict) or not isinstance(default, dict) or key in _AS_SAVED:
        return saved
    if saved.get("_target_") != default.get("_target_"):
        return saved
    names = saved if key in _COLLECTIONS else {**default, **saved}
    return {n: _filled(saved[n], default.get(n), f"{key}.{n}") if n in saved else default[n] for n in names}


def _leaves(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is not a mapping with entries."""
    if not isinstance(values, dict) or not values:
        yield prefix, values
        return
    for key, value in values.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _parsed(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(list(overrides))
