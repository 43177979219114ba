"""A file of named arrays that is mapped into memory: opened in no time, and shared by all processes that open it.

Layout: a fixed head (magic, length and checksum of what follows), a JSON description (a key that the reader must
expect, free facts, and for every array its type, shape, place and checksum), and the arrays, aligned to 64 bytes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_MAGIC = b"RTDETRv2 columns"
_HEAD = struct.Struct("<16sQI")
_ALIGNMENT = 64
_BLOCK = 2**20


class UnusableColumnsError(Exception):
    """The file is damaged, or holds something else than expected; the message is the reason."""


class ColumnFile:
    """Arrays of a file, read-only and mapped.

    Args:
        path: the file.
        key: what it must be about; None takes any.
        check: whether to compare the checksums of the arrays, which reads them all.

    Attributes:
        path: the file.
        key: what it is about.
        facts: what was written beside the arrays.
        arrays: by name.

    Raises:
        UnusableColumnsError: if it is damaged, or about something else.
        OSError: if it cannot be read.
    """

    def __init__(self, path: Path, key: Mapping[str, Any] | None = None, check: bool = True) -> None:
        self.path = path
        with path.open("rb") as stream:
            description, start = _description(stream, path.stat().st_size)
            self.key: dict[str, Any] = description["key"]
            if key is not None and self.key != dict(key):
                raise UnusableColumnsError("it is about another file, or about an earlier state of it")
            if check:
                for name, column in description["columns"].items():
                    if _checksum(stream, start + column["offset"], column["bytes"]) != column["checksum"]:
                        raise UnusableColumnsError(f"its column '{name}' is damaged")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.facts: dict[str, Any] = description["facts"]
        self.arrays: dict[str, NDArray[Any]] = {}
        for name, column in description["columns"].items():
            dtype, shape = np.dtype(column["dtype"]), tuple(column["shape"])
            count = int(np.prod(shape))
            flat = np.frombuffer(mapped, dtype, count, start + column["offset"]) if count else np.zeros(0, dtype)
            self.arrays[name] = flat.reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file itself, without checking it once more."""
        return _reopened, (self.path, self.key)


def _reopened(path: Path, key: Mapping[str, Any]) -> ColumnFile:
    return ColumnFile(path, key, check=False)


def write_columns(path: Path, key: Mapping[str, Any], facts: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a file that appears complete or not at all.

    Args:
        path: where to; what is there is replaced.
        key: what the file is about; goes into JSON.
        facts: goes into JSON.
        arrays: of any shape and plain type.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    columns: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, values in arrays.items():
        size = values.nbytes
        checksum = zlib.crc32(values.tobytes())
        columns[name] = {
            "dtype": values.dtype.str,
            "shape": values.shape,
            "offset": offset,
            "bytes": size,
            "checksum": checksum,
        }
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    text = json.dumps({"key": dict(key), "facts": dict(facts), "columns": columns, "bytes": offset}).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGNMENT)
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_HEAD.pack(_MAGIC, len(text), zlib.crc32(text)) + text)
            for values in arrays.values():
                stream.write(values.tobytes())
                stream.write(b"\0" * (-values.nbytes % _ALIGNMENT))
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(unfinished).unlink()
        raise


def _description(stream: Any, size: int) -> tuple[dict[str, Any], int]:
    """The checked JSON description, and where the arrays begin."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise UnusableColumnsError("it is cut short")
    magic, length, checksum = _HEAD.unpack(head)
    if magic != _MAGIC:
        raise UnusableColumnsError("it is no file of columns")
    text = stream.read(min(length, size))
    if zlib.crc32(text) != checksum:
        raise UnusableColumnsError("its description is damaged")
    description: dict[str, Any] = json.loads(text)
    start = _HEAD.size + length
    if size != start + description["bytes"]:
        raise UnusableColumnsError(f"it has {size} bytes instead of {start + description['bytes']}")
    return description, start


def _checksum(stream: Any, offset: int, size: int) -> int:
    """Of a part of the file, read in blocks: pages that are mapped would count as this process's memory."""
    stream.seek(offset)
    checksum = 0
    while size > 0:
        block = stream.read(min(size, _BLOCK))
        if not block:
            break
        checksum = zlib.crc32(block, checksum)
        size -= len(block)
    return checksum
