"""Reading weight files without running code that they may contain."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy
import safetensors
import torch
from safetensors.torch import load_file

from rtdetrv2_train.errors import UserError

_numpy_scalar = numpy.float64(0).__reduce__()[0]  # where it lives changes with NumPy's version
# What training frameworks leave beside tensors, and what each becomes here: plain data that can run nothing.
_HARMLESS: list[Any] = [
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),
    (PureWindowsPath, "pathlib.WindowsPath"),
    (PureWindowsPath, "pathlib._local.WindowsPath"),
    numpy.dtype,
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    *(type(numpy.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]
_REFUSED_NAME = re.compile(r"(?:GLOBAL|reduce:) (\w+(?:\.\w+)*)")
_LFS_POINTER = b"version https://git-lfs"
# Every way in which reading bytes that are not, or no longer, a saved dictionary has been seen to fail.
_DAMAGED = (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError)


def load_tensors(path: str | Path) -> dict[str, Any]:
    """The dictionary stored in a weight file, on the CPU.

    Args:
        path: a ``.safetensors`` file, or one written by ``torch.save`` (``.pth``, ``.pt``, ``.ckpt``).

    Returns:
        What the file holds; for a safetensors file, tensors by name.

    Raises:
        UserError: if the file is missing, empty, damaged, no dictionary, or holds objects that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weight file '{path}' does not exist: check the path")
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if not start:
        raise UserError(f"weight file '{path}' is empty: delete it and download or write it again")
    if start == _LFS_POINTER:
        raise UserError(f"weight file '{path}' is a git-lfs pointer, not the weights: run `git lfs pull` beside it")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickled(path)
    if not isinstance(content, dict):
        raise UserError(f"weight file '{path}' holds a {type(content).__name__}: a dictionary of tensors is needed")
    return content


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _load_pickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED_NAME.search(str(error))
        if refused is None:
            raise _damaged(path, error) from error
        raise UserError(
            f"weight file '{path}' was not loaded: it holds '{refused[1]}', which could run code; where "
            "it was made, save its tensors alone (torch.save(model.state_dict(), ...) or safetensors) and use that file"
        ) from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [""])[0]
    if len(reason) > 120 or reason.startswith("Weights only load failed"):
        reason = "its pickle is not understood" if isinstance(error, pickle.UnpicklingError) else f"{reason[:120]}..."
    reason = f" ({reason})" if reason else ""
    return UserError(
        f"weight file '{path}' is truncated, damaged or no file of saved tensors{reason}: download or write it again"
    )
