"""The ``data.yaml`` of a YOLO set: its classes, and where the images of its parts lie.

Paths in it are looked up as they are written, from ``path`` and from the folder of the file. Where nothing lies there,
a leading ``../`` is left out: Roboflow writes ``../train/images`` for what lies beside the file.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtdetrv2_train.data.formats.folder_state import names_in
from rtdetrv2_train.data.formats.source import Part
from rtdetrv2_train.errors import UserError

YAML_SUFFIXES = (".yaml", ".yml")
LAYOUT = "it needs 'names' and the keys 'train' and 'val', see https://docs.ultralytics.com/datasets/detect"
_KEYS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FIRST = ("data", "dataset")  # names that are taken before others
_MOST_BYTES = 2**22
# All values as text, so that a class may be called `no` or 1.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class DataYaml:
    """What a ``data.yaml`` says.

    Attributes:
        path: the file.
        names: of the classes, by their index; may have gaps.
        nc: the number of classes that it gives besides; None where it gives none.
        keypoints: numbers that a row has after its box where the set is one of poses; 0 where it is none.
        root: ``path`` in the file; empty where it has none.
        parts: what is written for each part: paths to folders and lists of images.
        keys: the key of each part.
    """

    path: Path
    names: dict[int, str]
    nc: int | None
    keypoints: int
    root: str
    parts: dict[Part, list[str]]
    keys: dict[Part, str]

    def places(self, part: Part) -> list[Path]:
        """The folders and lists of images of a part.

        Raises:
            UserError: if one does not exist; says where it was looked for.
        """
        return [self._place(written, part) for written in self.parts[part]]

    def _place(self, written: str, part: Part) -> Path:
        tried: list[Path] = []
        name = written.replace("\\", "/")
        for base in self.bases():
            for candidate in (base / name, base / _without_parents(name)):
                plain = Path(os.path.normpath(candidate))
                if candidate.exists():
                    # What follows a link may not be where the path says.
                    return plain if plain.exists() and plain.samefile(candidate) else candidate.resolve()
                if plain not in tried:
                    tried.append(plain)
        looked = " and ".join(f"'{path}'" for path in tried)
        raise UserError(
            f"'{self.path}': '{self.keys[part]}' is '{written}', which is nowhere; looked for {looked}: correct "
            f"'{self.keys[part]}', or 'path'{f', which is {self.root!r}' if self.root else ''}"
        )

    def bases(self) -> list[Path]:
        """The folders that paths may be relative to: ``path``, if it exists, then the folder of the file."""
        own = self.path.parent
        root = own / self.root.replace("\\", "/")
        return [root, own] if self.root and root.is_dir() else [own]


def data_yaml_in(folder: Path) -> list[Path]:
    """The files of a folder that are a ``data.yaml`` under any name, the likeliest first."""
    names = names_in(folder, YAML_SUFFIXES)
    order = {name: position for position, name in enumerate((*_FIRST, folder.name))}
    names.sort(key=lambda name: (order.get(Path(name).stem.lower(), len(order)), name))
    return [folder / name for name in names if is_data_yaml(folder / name)]


def is_data_yaml(path: Path) -> bool:
    """Whether this is a YAML file with names and parts.

    Raises:
        UserError: if it has the usual name and is not YAML.
    """
    try:
        content = _content(path)
    except UserError:
        if path.stem.lower() in _FIRST:
            raise
        return False
    return (
        isinstance(content, dict) and ("names" in content or "nc" in content) and not content.keys().isdisjoint(_KEYS)
    )


def read_data_yaml(path: Path) -> DataYaml:
    """Read and check a ``data.yaml``.

    Raises:
        UserError: if it cannot be read, or classes or parts are not as they should be.
    """
    content = _content(path)
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds a {type(content).__name__}, not keys and values: {LAYOUT}")
    parts: dict[Part, list[str]] = {}
    keys: dict[Part, str] = {}
    for key, part in _KEYS.items():
        value = _given(content, key) or []
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"'{path}': '{key}' is {value!r:.80}: give a folder, a list of images, or several of them")
        if entries and part not in parts:
            parts[part], keys[part] = entries, key
    nc = _whole(content.get("nc"))
    root = _given(content, "path") or ""
    if not isinstance(root, str):
        raise UserError(f"'{path}': 'path' is {root!r:.80}: give a folder")
    return DataYaml(path, _names(content.get("names"), nc, path), nc, _keypoints(content, path), root, parts, keys)


def _given(content: dict[str, Any], key: str) -> Any:
    """A value, or None where the file says that there is none."""
    value = content.get(key)
    return None if value in ("", "~", "null", "Null", "NULL", "None") else value


def _content(path: Path) -> Any:
    try:
        state = path.stat()
        return _parsed(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, size: int, modified: int) -> Any:
    """The content of a file of this size and time: every part of a set asks for it."""
    if size > _MOST_BYTES:
        raise UserError(f"'{path}' has {size:,} bytes, which is no description of a data set: {LAYOUT}")
    try:
        return yaml.load(path.read_bytes(), Loader=_LOADER)  # values are text only
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"'{path}'{line} is not YAML ({reason}): {LAYOUT}") from error


def _names(value: Any, nc: int | None, path: Path) -> dict[int, str]:
    """Name of each class. Without names they are called after their index."""
    if not value and nc:
        return {index: f"class_{index}" for index in range(nc)}
    names: dict[int, Any] = {}
    if isinstance(value, list):
        names = dict(enumerate(value))
    elif isinstance(value, dict):
        for key, name in value.items():
            index = _whole(key)
            if index is None or index < 0 or index in names:
                raise UserError(
                    f"'{path}': 'names' has the key {key!r:.80}: give every class a whole number of its own"
                )
            names[index] = name
    if not names:
        raise UserError(f"'{path}': 'names' is {value!r:.80}: give the names of the classes as a list")
    for index, name in names.items():
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"'{path}': class {index} of 'names' is {name!r:.80}: give every class a name")
    return {index: name.strip() for index, name in names.items()}


def _keypoints(content: dict[str, Any], path: Path) -> int:
    shape = content.get("kpt_shape")
    if not shape:
        return 0
    sides = [_whole(side) for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] is None or sides[1] not in (2, 3):
        raise UserError(
            f"'{path}': 'kpt_shape' is {shape!r:.80}: give the number of points, and 2 or 3 values for each: [17, 3]"
        )
    return sides[0] * sides[1]


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _without_parents(name: str) -> str:
    while name.startswith("../"):
        name = name[3:].lstrip("/")
    return name
