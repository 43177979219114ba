"""Writing weight files and their descriptions so that no reader ever sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor


def atomic_save(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Have ``write`` fill a file beside ``path``, then move it there in one step.

    Args:
        path: the file to make or replace; its folder is made if missing.
        write: called with the temporary path.

    Returns:
        ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)  # mkstemp lets nobody else read the file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors as safetensors, each with memory of its own and on the CPU."""
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return atomic_save(path, lambda temporary: save_file(apart, temporary, metadata={"format": "pt"}))


def save_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return atomic_save(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
