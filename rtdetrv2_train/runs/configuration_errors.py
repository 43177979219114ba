"""One line for an error of composing the configuration. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtdetrv2_train.errors import UserError, nearest


def explain(error: Exception, config_folder: Path) -> str:
    """One line for an error of composing the configuration, with the nearest right name.

    Args:
        error: raised by Hydra or OmegaConf.
        config_folder: the folder of configuration groups.
    """
    text = str(error)
    if found := re.search(r"Could not find '([\w/.-]+)'", text):
        group, _, option = found.group(1).rpartition("/")
        options = sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
        return f"there is no {group}={option}: {nearest(option, options)}use one of {', '.join(options)}"
    found = re.search(r"Could not override '([\w/.@-]+)'", text) or re.search(r"full_key: ([\w.]+)", text)
    if found and ("not in struct" in text or "Could not override" in text):
        key = found.group(1)
        suggestion = _nearest_key(key, sorted(set(_keys(config_folder))))
        return f"there is no key '{key}': {suggestion}see `--cfg job` for all keys"
    return " ".join(text.split())


def user_error_within(error: BaseException | None) -> UserError | None:
    """The :class:`UserError` that Hydra wrapped while building an object, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _nearest_key(key: str, keys: list[str]) -> str:
    """A key that is nearly the same, or one whose last part is right."""
    return nearest(key, keys) or nearest(key, [k for k in keys if k.rpartition(".")[2] == key.rpartition(".")[2]][:1])


def _keys(config_folder: Path) -> Iterator[str]:
    """Every dotted key that the groups define."""
    from omegaconf import OmegaConf

    def walk(values: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    for path in config_folder.rglob("*.yaml"):
        group = path.relative_to(config_folder).parts[:-1]
        at_root = not group or path.read_text(encoding="utf-8").startswith("# @package _global_")
        values = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(values, dict):
            yield from walk(values, "" if at_root else f"{group[0]}.")  # type: ignore[arg-type]
