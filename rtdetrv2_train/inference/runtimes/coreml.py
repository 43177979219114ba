"""Core ML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard


def open_coreml(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open a Core ML package, on macOS alone. Core ML chooses between CPU, GPU and Neural Engine.

    Args:
        path: of the ``.mlpackage`` folder.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if Core ML cannot open it.
    """
    import coremltools

    try:
        model = coremltools.models.MLModel(str(path))
    except Exception as error:  # of the package, or of the compiler behind it
        raise UserError(f"Core ML cannot open '{path}' ({str(error).splitlines()[0]})") from error

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        outputs = model.predict(dict(zip(card.input_names, inputs, strict=True)))
        return [outputs[name] for name in card.output_names]

    return run
