"""A folder of arrays that are mapped into memory: opened in no time, and shared by all processes that open it.

Each array is a ``.npy`` file. A JSON file beside them says what they are about and holds their checksums.
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DESCRIPTION = "description.json"
_BLOCK = 2**20


class UnusableArraysError(Exception):
    """The folder is damaged, or holds something else than expected; the message is the reason."""


class ArrayFolder:
    """Arrays of a folder, read-only and mapped.

    Args:
        path: the folder.
        key: what it must be about.
        check: whether to compare the checksums of the arrays, which reads them all.

    Attributes:
        path: the folder.
        key: what it is about.
        facts: what was written beside the arrays.
        arrays: by name.

    Raises:
        UnusableArraysError: if it is damaged, or about something else.
        OSError: if it cannot be read.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], check: bool = True) -> None:
        self.path, self.key = path, dict(key)
        text = (path / _DESCRIPTION).read_bytes()
        description = _checked_description(text)
        if description["key"] != self.key:
            raise UnusableArraysError("it is about another file, or about an earlier state of it")
        self.facts: dict[str, Any] = description["facts"]
        self.arrays: dict[str, NDArray[Any]] = {}
        for name, checksum in description["checksums"].items():
            file = path / f"{name}.npy"
            if check and _checksum(file) != checksum:
                raise UnusableArraysError(f"its array '{name}' is damaged")
            # as a plain array, of which slices are cheaper than those of a memmap
            self.arrays[name] = np.asarray(np.load(file, mmap_mode="r"))
        if (path / _DESCRIPTION).read_bytes() != text:
            raise UnusableArraysError("it was replaced while it was being opened")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder itself, without comparing the checksums once more."""
        return ArrayFolder, (self.path, self.key, False)


def write_arrays(
    path: Path, key: Mapping[str, Any], facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a folder that appears complete or not at all. Only one process may do so at a time.

    Args:
        path: where to; what is there is replaced, and stays usable by those who have opened it.
        key: what the arrays are about; goes into JSON.
        facts: goes into JSON.
        arrays: of any shape and plain type.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    with tempfile.TemporaryDirectory(
        prefix=f"{path.name}.", suffix=".part", dir=path.parent, ignore_cleanup_errors=True
    ) as unfinished:
        complete, outdated = Path(unfinished) / "new", Path(unfinished) / "old"
        complete.mkdir()
        checksums = {}
        for name, values in arrays.items():
            # not straight to the file: np.save keeps to itself why a disk took only a part
            stream = io.BytesIO()
            np.save(stream, values, allow_pickle=False)
            (complete / f"{name}.npy").write_bytes(stream.getbuffer())
            checksums[name] = zlib.crc32(stream.getbuffer())
        text = json.dumps({"key": dict(key), "facts": dict(facts), "checksums": checksums}).encode()
        (complete / _DESCRIPTION).write_bytes(b"%d\n" % zlib.crc32(text) + text)
        if path.exists():
            path.rename(outdated)
        complete.rename(path)


def _checked_description(content: bytes) -> dict[str, Any]:
    """The JSON, which follows its checksum on a line of its own."""
    checksum, _, text = content.partition(b"\n")
    if checksum != b"%d" % zlib.crc32(text):
        raise UnusableArraysError("its description is damaged")
    description: dict[str, Any] = json.loads(text)
    return description


def _checksum(file: Path) -> int:
    """Of a file, read in blocks: pages that are mapped would count as this process's memory."""
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum
