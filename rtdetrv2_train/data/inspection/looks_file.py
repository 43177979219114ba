"""What was seen of image files, kept in one file that only grows, so that an interrupted inspection continues.

Records follow each other, each with its length and a checksum. What a killed process left half-written at the end does
not count, and is cut off.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

Key = tuple[str, int, int]
"""Of a file: path, size in bytes, time of the last change in nanoseconds."""

_HEAD = struct.Struct("<II")
_VERSION = 1  # to be raised whenever what is seen of an image, or how it is written, changes
_EVERY = 1.0  # seconds until what was seen is written


class LooksFile:
    """Recalls what was seen of a file as long as the file is unchanged. May be used by several threads.

    Args:
        path: where it is kept; made if missing.
        about: what it must be about; one about something else, or of another version, is begun anew.

    Raises:
        UserError: if it cannot be written.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self._known: dict[str, tuple[int, int, bytes]] = {}
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._written = time.monotonic()
        about_this = f"{_VERSION}, {about}".encode()
        whole = self._read(about_this)
        try:
            self._stream: IO[bytes] = path.open("r+b" if whole else "wb")
        except OSError as error:
            raise UserError(f"'{path}' cannot be written: {error.strerror}; give another output=") from error
        self._stream.truncate(whole)
        self._stream.seek(whole)
        if not whole:
            self._stream.write(_record(about_this))
        self.recalled = len(self._known)
        """Number of images that are known from before."""

    def __enter__(self) -> LooksFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()
        self._stream.close()

    def recall(self, key: Key) -> bytes | None:
        """What was kept of a file; None where it is not known, or has changed."""
        path, size, changed = key
        known = self._known.get(path)
        return known[2] if known is not None and known[:2] == (size, changed) else None

    def keep(self, key: Key, content: bytes) -> None:
        """Keep what was seen of a file; it is on the disk after a second or so."""
        record = _record(msgspec.msgpack.encode((*key, content)))
        with self._lock:
            self._known[key[0]] = (key[1], key[2], content)
            self._waiting.append(record)
            if time.monotonic() - self._written > _EVERY:
                self._flush()

    def flush(self) -> None:
        """Write what has not been written yet."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        self._stream.write(b"".join(self._waiting))
        self._stream.flush()
        self._waiting.clear()
        self._written = time.monotonic()

    def _read(self, about: bytes) -> int:
        """Take what is in the file; gives the number of bytes up to which it is whole, 0 where it is no use."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UserError(f"'{self.path}' cannot be read: {error.strerror}; give another output=") from error
        decode = msgspec.msgpack.Decoder(tuple[str, int, int, bytes]).decode
        place, first = 0, True
        while place + _HEAD.size <= len(content):
            length, checksum = _HEAD.unpack_from(content, place)
            payload = content[place + _HEAD.size : place + _HEAD.size + length]
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            if first and payload != about:
                return 0
            if not first:
                path, size, changed, kept = decode(payload)
                self._known[path] = (size, changed, kept)
            place, first = place + _HEAD.size + length, False
        if place < len(content):
            logger.info("'%s' ends in the middle of an image, as its inspection was interrupted", self.path)
        return place


def _record(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
