"""OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard

_SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # of what is not int8; by itself it computes in bfloat16 where it can
}


def open_openvino(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open an OpenVINO file, on the CPU with all its cores.

    Args:
        path: of the ``.xml`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if OpenVINO cannot open it.
    """
    import openvino

    try:
        compiled = openvino.Core().compile_model(path, "CPU", _SETTINGS)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"OpenVINO {openvino.__version__} cannot open '{path}' ({reason})") from error
    request = compiled.create_infer_request()

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        found = request.infer(dict(zip(card.input_names, inputs, strict=True)), share_inputs=True)
        return [np.array(found[name]) for name in card.output_names]  # copies: the next call overwrites them

    return run
