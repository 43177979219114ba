"""Overrides as they are typed, where Hydra's grammar would refuse or misread them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Last parts of the keys whose values are paths or names, however odd.
_PATHS = {"annotations", "checkpoint", "dir", "dirpath", "filename", "folder", "images", "init_from", "name", "output"}
_PATHS |= {"path", "pretrained", "resume", "root", "run", "run_folder", "source", "with"}
_LEFT_OUT = {f"{group}={none}": f"~{group}" for group in ("callbacks", "logger") for none in ("null", "")}
_OVERRIDE = re.compile(r"(\+{0,2}[\w./@-]+)=(.*)", re.DOTALL)


def with_paths_quoted(arguments: Sequence[str]) -> list[str]:
    """Arguments with every path as a string that Hydra takes as it stands, and ``callbacks=null`` as ``~callbacks``.

    Interpolations stay, as do quotes that are there already, and in a sweep values between commas.

    Args:
        arguments: overrides, and options of Hydra's.
    """
    multirun = bool({"-m", "--multirun"} & set(arguments))
    return [_with_path_quoted(argument, multirun) for argument in arguments]


def quoted(text: str) -> str:
    """A string in quotes, as a value of Hydra's grammar."""
    doubled = re.sub(r"(\\+)(?=$|')", r"\1\1", text)  # only before a quote does Hydra read two backslashes as one
    return "'" + doubled.replace("'", "\\'") + "'"


def _with_path_quoted(argument: str, multirun: bool) -> str:
    if argument in _LEFT_OUT:
        return _LEFT_OUT[argument]
    found = _OVERRIDE.fullmatch(argument)
    if found is None or re.split(r"[./]", found.group(1))[-1].lstrip("+") not in _PATHS:
        return argument
    key, value = found.groups()
    return argument if "${" in value or _is_path(argument, value, key, multirun) else f"{key}={quoted(value)}"


def _is_path(argument: str, value: str, key: str, multirun: bool) -> bool:
    """Whether Hydra reads an override as it is meant: as a string, or as none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    if override.is_sweep_override():
        return multirun
    read: Any = override.value()
    if isinstance(read, list | dict):
        return key.startswith("data.")
    return value == value.strip() and (not isinstance(read, int | float) or isinstance(read, bool))
