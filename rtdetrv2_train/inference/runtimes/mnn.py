"""MNN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard
from rtdetrv2_train.system.resources import available_cores


def open_mnn(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open an MNN file, on the CPU with all its cores.

    Args:
        path: of the ``.mnn`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if MNN cannot open it.
    """
    import MNN

    manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": available_cores()},))
    names = list(card.input_names), list(card.output_names)
    try:
        module = MNN.nn.load_module_from_file(str(path), *names, runtime_manager=manager)
    except Exception as error:  # SystemError, as its extension leaves an exception behind
        raise UserError(f"MNN cannot open '{path}': export the model again") from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        variables = [MNN.expr.const(np.ascontiguousarray(a), list(a.shape), MNN.expr.NCHW) for a in inputs]
        return [np.array(output.read()) for output in module.forward(variables)]

    return run
