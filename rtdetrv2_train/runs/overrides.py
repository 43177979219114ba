"""Overrides as they are typed, where Hydra's grammar would refuse or misread them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Last parts of the keys whose values are paths or names, however odd.
_PATHS = {"annotations", "checkpoint", "dir", "dirpath", "filename", "folder", "images", "init_from", "name", "output"}
_PATHS |= {"path", "sources", "pretrained", "resume", "root", "run", "run_folder", "source", "with"}
_NAMES = {"classes", "class_names", "formats"}  # lists of names, which may be digits; one value is a list of one
_NAME = re.compile(r"""\s*('(?:\\'|[^'])*'|"(?:\\"|[^"])*"|[^,]*?)\s*(?:,|$)""")
_LEFT_OUT = {f"{group}={none}": f"~{group}" for group in ("callbacks", "logger") for none in ("null", "")}
_WITH_SOURCES = {"data.train", "data.val"}  # mappings, of which a path or a list of paths alone stands for the sources
_OVERRIDE = re.compile(r"(\+{0,2}[\w./@-]+)=(.*)", re.DOTALL)


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Arguments with every path and every name as a string that Hydra takes as it stands.

    And ``callbacks=null`` as ``~callbacks``, which it stands for.

    Interpolations stay, as do quotes that are there already, and in a sweep values between commas.

    Args:
        arguments: overrides, and options of Hydra's.
    """
    multirun = bool({"-m", "--multirun"} & set(arguments))
    return [_as_typed(argument, multirun) for argument in arguments]


def quoted(text: str) -> str:
    """A string in quotes, as a value of Hydra's grammar."""
    doubled = re.sub(r"(\\+)(?=$|')", r"\1\1", text)  # only before a quote does Hydra read two backslashes as one
    return "'" + doubled.replace("'", "\\'") + "'"


def _as_typed(argument: str, multirun: bool) -> str:
    if argument in _LEFT_OUT:
        return _LEFT_OUT[argument]
    found = _OVERRIDE.fullmatch(argument)
    if found is None or "${" in found.group(2):
        return argument
    key, value = found.groups()
    if key in _WITH_SOURCES and value not in ("", "null") and not value.startswith("{"):
        key = f"{key}.sources"
        argument = f"{key}={value}"
    end = re.split(r"[./]", key)[-1].lstrip("+")
    if end in _NAMES and value not in ("", "null"):
        return f"{key}={_list_of_names(value)}"
    return argument if end not in _PATHS or _is_path(argument, value, key, multirun) else f"{key}={quoted(value)}"


def _list_of_names(value: str) -> str:
    names = [name for name in _NAME.findall(value.strip().removeprefix("[").removesuffix("]")) if name]
    return "[" + ",".join(name if name[0] in "'\"" else quoted(name) for name in names) + "]"


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
