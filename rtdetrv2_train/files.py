"""Writing files so that no reader ever sees half of one, reading JSON, and the cache. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdetrv2_train.errors import UserError


def cache_folder() -> Path:
    """This user's folder for files that can be built again."""
    home = os.environ.get("HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else tempfile.gettempdir()))
    return base / "rtdetrv2_train"


def atomic_save(path: str | Path, write: Callable[[Path], object], previous: str | Path | None = None) -> Path:
    """Have ``write`` fill a file beside ``path``, then move it there in one step, once it is safely on the disk.

    Args:
        path: the file to make or replace; its folder is made if missing.
        write: called with the temporary path.
        previous: where the file that is replaced goes; None: it is deleted.

    Returns:
        ``path``.

    Raises:
        OSError: if writing fails; the file that was to be replaced is still there, then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            write(temporary)
        except RuntimeError as error:  # torch.save closes its archive after the disk is full, and complains of that
            raise _os_error_behind(error) or error from error
        temporary.chmod(0o644)  # mkstemp lets nobody else read the file
        _flush_to_disk(temporary)
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # not every file system can
            _flush_to_disk(path.parent)  # the new name, too, outlives a machine that dies now
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _os_error_behind(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON."""
    return save_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def save_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8."""
    return atomic_save(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: if the file is missing or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}): write or fetch it again") from error
    if not isinstance(values, dict):
        raise UserError(f"'{path}' holds a {type(values).__name__}, not a JSON object: write or fetch it again")
    return values
