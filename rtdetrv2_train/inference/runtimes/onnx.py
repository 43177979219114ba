"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard


def open_onnx(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open an ONNX file in ONNX Runtime, on the CPU with all its cores.

    Args:
        path: of the ``.onnx`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if ONNX Runtime cannot open it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warns of what it cannot fold
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class but this
        reason = str(error).splitlines()[0]
        raise UserError(f"ONNX Runtime {onnxruntime.__version__} cannot open '{path}' ({reason})") from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        return list(session.run(list(card.output_names), dict(zip(card.input_names, inputs, strict=True))))

    return run
