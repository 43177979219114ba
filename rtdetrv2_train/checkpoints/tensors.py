"""Writing tensors as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rtdetrv2_train.files import atomic_save


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write tensors as safetensors, each with memory of its own and on the CPU."""
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return atomic_save(path, lambda temporary: save_file(apart, temporary, metadata={"format": "pt"}))
