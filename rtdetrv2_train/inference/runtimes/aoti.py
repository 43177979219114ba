"""Packages of AOTInductor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard
from rtdetrv2_train.model.architecture import COARSEST_STRIDE


def open_aoti(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open a compiled package in PyTorch, on the CPU.

    Args:
        path: of the ``.pt2`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order. It raises ValueError for
        images of another shape or type than the package's, which checks neither and would read outside of them.

    Raises:
        UserError: if PyTorch cannot open it.
    """
    from torch._inductor import aoti_load_package

    try:
        package = aoti_load_package(str(path))
    except Exception as error:  # of the archive, of the linker, or of a processor of another kind
        reason = str(error).splitlines()[0]
        raise UserError(
            f"PyTorch {torch.__version__} cannot open '{path}' ({reason}): export the model on a machine like this one"
        ) from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        _check(inputs[0], card)
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]  # it ignores other strides
            return [output.numpy() for output in package(*tensors)]

    return run


def _check(images: NDArray[Any], card: ExportCard) -> None:
    batch, height, width = card.batch or len(images), *card.image_size
    if not card.fixed_size:
        height, width = (max(side // COARSEST_STRIDE, 1) * COARSEST_STRIDE for side in images.shape[2:])
    if images.shape != (batch, card.channels, height, width) or images.dtype != "float32":
        raise ValueError(
            f"this model takes float32 images [{batch}, {card.channels}, {height}, {width}], not {images.dtype} "
            f"{list(images.shape)}"
        )
