"""ExecuTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard


def open_executorch(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open an ExecuTorch file, on the CPU with all its cores.

    Args:
        path: of the ``.pte`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if ExecuTorch cannot open it.
    """
    import torch
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
    except RuntimeError as error:
        raise UserError(f"ExecuTorch cannot open '{path}' ({str(error).splitlines()[0]})") from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        # the memory of an array is read in its order, whatever its strides; outputs lie in memory of the program
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        return [output.numpy().copy() for output in method.execute(tensors)]

    return run
