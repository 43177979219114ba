"""Which classes a file may name: a run's folder that somebody sends must not be able to call just anything."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.folder import config_folder

_NAMED = re.compile(r"\b_target_: *([\w.]+)")
_TRANSFORM = re.compile(r"albumentations\.[A-Z]\w*")


@functools.cache
def trusted_classes() -> frozenset[str]:
    """The classes that ``conf/`` names; besides them, transforms of Albumentations may be named."""
    texts = (path.read_text(encoding="utf-8") for path in config_folder().rglob("*.yaml"))
    return frozenset(target for text in texts for target in _NAMED.findall(text))


def check_classes(config: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Refuse classes that a file names, unless they are trusted or this command names them itself, at the same key.

    Args:
        config: as it would be used, plain, every interpolation resolved.
        own: as composed from ``conf/`` and the command line alone.
        source: the file, for the error.

    Raises:
        UserError: if another class, or any function, is named.
    """
    composed = dict(_targets(own, ""))
    for key, target in _targets(config, ""):
        trusted = target in trusted_classes() or _TRANSFORM.fullmatch(str(target))
        if not trusted and composed.get(key) != target:
            raise UserError(
                f"'{source}' asks for '{target}' at {key}, which a file may not call: if you trust it, name it "
                f"yourself with +{key}={target}"
            )


def _targets(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every ``_target_``."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        if key == "_target_":
            yield f"{prefix}{key}", value
        else:
            yield from _targets(value, f"{prefix}{key}.")
