"""LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard
from rtdetrv2_train.system.resources import available_cores


def open_litert(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open a LiteRT file, on the CPU with all its cores.

    Args:
        path: of the ``.tflite`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if LiteRT cannot open it.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        runner = Interpreter(str(path), num_threads=available_cores()).get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"LiteRT cannot open '{path}' ({str(error).splitlines()[0]})") from error
    # the file numbers its inputs and outputs instead of naming them
    inputs_by_number = [f"args_{number}" for number in range(len(card.input_names))]
    outputs_by_number = [f"output_{number}" for number in range(len(card.output_names))]

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        outputs = runner(**dict(zip(inputs_by_number, inputs, strict=True)))
        return [outputs[name] for name in outputs_by_number]

    return run
