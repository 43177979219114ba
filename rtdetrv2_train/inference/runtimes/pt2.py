"""Programs of ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard


def open_pt2(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open a recorded program in PyTorch, on the CPU.

    Args:
        path: of the ``.pt2`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if PyTorch cannot open it.
    """
    try:
        module = torch.export.load(path).module()
    except Exception as error:  # of the archive, of its JSON, or of an operator that this release has not
        reason = str(error).splitlines()[0]
        raise UserError(
            f"PyTorch {torch.__version__} cannot open '{path}' ({reason}): export the model again"
        ) from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

    return run
