"""TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard


def open_tensorrt(path: Path, card: ExportCard) -> Callable[..., list[NDArray[Any]]]:
    """Open an engine on the first GPU.

    Args:
        path: of the ``.engine`` file.
        card: beside it.

    Returns:
        what takes the inputs in the order of the card and gives the outputs in their order.

    Raises:
        UserError: if there is no GPU, or TensorRT cannot open it.
    """
    import tensorrt

    if not torch.cuda.is_available():
        raise UserError(f"'{path}' needs a GPU, and PyTorch finds none here")
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise UserError(
            f"TensorRT {tensorrt.__version__} cannot open '{path}': export it again, on this GPU and with this TensorRT"
        )
    context = engine.create_execution_context()
    stream = torch.cuda.Stream()

    def run(*inputs: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.cuda.stream(stream):
            taken = [torch.from_numpy(value).cuda() for value in inputs]
            for name, value in zip(card.input_names, taken, strict=True):
                context.set_input_shape(name, tuple(value.shape))
                context.set_tensor_address(name, value.data_ptr())
            given = [torch.empty(tuple(context.get_tensor_shape(name)), device="cuda") for name in card.output_names]
            for name, value in zip(card.output_names, given, strict=True):
                context.set_tensor_address(name, value.data_ptr())
            context.execute_async_v3(stream.cuda_stream)
            return [value.cpu().numpy() for value in given]

    return run
