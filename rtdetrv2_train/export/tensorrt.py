"""Writing TensorRT engines, from ONNX, on the machine with the GPU that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.graph import Shape
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.inference.export_card import Precision

_MOST_IMAGES = 16  # of a batch that is left open; TensorRT tunes for a range
_SIDES = (0.5, 1, 1.5)  # smallest, usual and largest of a size that is left open, as factors of the usual one


def write_tensorrt(
    onnx_file: Path, path: Path, shape: Shape, usual: tuple[int, int], precision: Precision, channels: int = 3
) -> None:
    """Build an engine.

    Args:
        onnx_file: of a raw graph in float32.
        path: of the ``.engine`` file.
        shape: what of the input is fixed.
        usual: (height, width) to tune for, where the size is left open.
        channels: of the images.
        precision: ``float32`` or ``float16``, in which TensorRT then computes where that is faster.

    Raises:
        UserError: if TensorRT cannot read the graph, or build the engine.
    """
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise UserError(f"TensorRT {tensorrt.__version__} cannot read the graph ({parser.get_error(0).desc()})")
    config = builder.create_builder_config()
    if precision == "float16":
        config.set_flag(tensorrt.BuilderFlag.FP16)
    if None in (shape.batch, shape.image_size):
        profile = builder.create_optimization_profile()
        profile.set_shape("images", *_range_of(shape, usual, channels))
        config.add_optimization_profile(profile)
    engine: Any = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"TensorRT {tensorrt.__version__} cannot build an engine of this model: it says why above")
    atomic_save(path, lambda temporary: temporary.write_bytes(engine))


def _range_of(shape: Shape, usual: tuple[int, int], channels: int) -> list[tuple[int, ...]]:
    """Smallest, usual and largest shape of the images."""
    batches = (1, 1, _MOST_IMAGES) if shape.batch is None else (shape.batch,) * 3
    sizes = [tuple(max(round(side * factor / 32), 2) * 32 for side in usual) for factor in _SIDES]
    return [(n, channels, *(shape.image_size or size)) for n, size in zip(batches, sizes, strict=True)]
