"""One line for an error of composing the configuration, and for keys that nothing reads. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.runs.folder import config_folder
from rtdetrv2_train.runs.other_names import answer, right_key
from rtdetrv2_train.runs.overrides import quoted

# Sections that take no other keys than those of a file, and where in it. Mappings below them are open, and the keys of
# other sections are checked by the classes that are built of them.
_SECTIONS = {
    "": ("{command}.yaml", ""),
    "evaluation": ("{command}.yaml", "evaluation"),
    "model": ("model/base/rtdetrv2.yaml", ""),
    "recipe": ("recipe/default.yaml", ""),
    "augment": ("augment/dynamic.yaml", ""),
    "data.train": ("data/auto.yaml", "train"),
    "data.val": ("data/auto.yaml", "val"),
    "sweep": ("sweep/base/study.yaml", "sweep"),
}

_NOTHING_TO_CHOOSE = {"eval": "recipe", "predict": "model", "export": "model"}  # groups whose keys matter to others


def check_keys(config: DictConfig, command: str) -> None:
    """Refuse keys that nothing would read: those added with ``+`` or by a file, as others are unknown to Hydra already.

    A key that an interpolation refers to is read.

    Args:
        config: as composed.
        command: such as ``train``.

    Raises:
        UserError: if there is one; the message names the key that may be meant.
    """
    for section, (name, within) in _SECTIONS.items():
        given = OmegaConf.select(config, section) if section else config
        if not isinstance(given, DictConfig):
            continue
        file = config_folder() / name.format(command=command)
        listed = OmegaConf.load(file)
        known = {*(OmegaConf.select(listed, within) if within else listed), *(() if section else _groups(file))}
        for key in (f"{section}.{key!s}".lstrip(".") for key in given if key not in known):
            if f"${{{key}" not in OmegaConf.to_yaml(config):
                raise UserError(no_such_key(key, command))


def no_such_key(key: str, command: str) -> str:
    """One line for a key that a command does not have, with the one that may be meant."""
    keys = sorted({own for own in _keys(config_folder(), command) if not key.startswith(f"{own}.")})
    same_end = next((own for own in keys if own.rpartition(".")[2] == key.rpartition(".")[2]), None)
    if (meant := right_key(key, keys) or same_end) is not None:
        suggestion = f"did you mean '{meant}'? "
    else:
        suggestion = f"{said}; " if (said := answer(key)) else nearest(key, keys)
    return f"there is no key '{key}': {suggestion}see `--cfg job` for all keys"


def explain(error: Exception, config_folder: Path, command: str) -> str:
    """One line for an error of composing the configuration, with the nearest right name.

    Args:
        error: raised by Hydra or OmegaConf.
        config_folder: the folder of configuration groups.
        command: such as ``train``.
    """
    text = str(error)
    if found := re.search(r"Could not find '([\w/.-]+)'", text):
        group, _, option = found.group(1).rpartition("/")
        options = sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
        return f"there is no {group}={option}: {nearest(option, options)}use one of {', '.join(options)}"
    if type(error).__name__ == "OverrideParseException" and "=" in (override := getattr(error, "override", "")):
        key, _, value = override.partition("=")
        return f"Hydra cannot read '{override}': quote the value, {key}={quoted(value)}, and again for the shell"
    if (key := missing_key(error)) is not None:
        return no_such_key(key, command)
    if found := re.search(r"call to target '([\w.]+)'.*unexpected keyword argument '(\w+)'", text, re.DOTALL):
        section = re.search(r"full_key: ([\w.]+)", text)
        key = f"{section.group(1)}.{found.group(2)}" if section else found.group(2)
        return f"{found.group(1).rpartition('.')[2]} takes no '{found.group(2)}': {no_such_key(key, command)}"
    return " ".join(text.split())


def missing_key(error: Exception) -> str | None:
    """The key of an override that Hydra does not know; None for another error."""
    text = str(error)
    found = re.search(r"Could not override '([\w/.@-]+)'", text) or re.search(r"full_key: ([\w.]+)", text)
    return found.group(1) if found and ("not in struct" in text or "Could not override" in text) else None


def user_error_within(error: BaseException | None) -> UserError | None:
    """The :class:`UserError` that Hydra wrapped while building an object, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _keys(config_folder: Path, command: str) -> Iterator[str]:
    """Every dotted key that a command has, whatever is chosen of its groups."""

    def walk(values: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    groups = _groups(config_folder / f"{command}.yaml")
    yield from groups
    groups.discard(_NOTHING_TO_CHOOSE.get(command, ""))
    for path in [config_folder / f"{command}.yaml", *(p for g in groups for p in (config_folder / g).rglob("*.yaml"))]:
        group = path.relative_to(config_folder).parts[:-1]
        at_root = not group or path.read_text(encoding="utf-8").startswith("# @package _global_")
        values = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(values, dict):
            values.pop("defaults", None)
            yield from walk(values, "" if at_root else f"{group[0]}.")  # type: ignore[arg-type]


def _groups(file: Path) -> set[str]:
    """The groups that a command chooses from."""
    defaults = OmegaConf.select(OmegaConf.load(file), "defaults")
    return {name for entry in defaults if isinstance(entry, DictConfig) for name in map(str, entry) if " " not in name}
