"""Writing ONNX files: float32, float16 and int8."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.onnx_resize import resize_within
from rtdetrv2_train.files import atomic_save

OLDEST_OPSET = OPSET = 18
_SCOPES = "pkg.torch.onnx.name_scopes"
_INT8_PARTS = ("model.backbone", "model.encoder")
_FLOAT_PARTS = ("model.encoder.encoder",)  # attention loses AP in int8


def write_onnx(
    recorded: Recorded, path: Path, opset: int, calibration: Iterable[NDArray[np.float32]], letterbox: bool | None
) -> None:
    """Write an ONNX file.

    Args:
        recorded: the graph.
        path: of the file.
        opset: version of ONNX's operators.
        calibration: inputs ``[1, C, H, W]`` for int8.
        letterbox: for an end-to-end graph: whether images keep their aspect ratio; None for a raw graph.

    Raises:
        UserError: if the opset is not to be had.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(f"opset={opset}: PyTorch and onnx {onnx.__version__} write {OLDEST_OPSET} to {newest}")
    model = translated(recorded, opset)
    if recorded.precision == "int8":
        model = _quantized(model, recorded, calibration)
    elif recorded.precision == "float16":
        model = _halved(model)
    if letterbox is not None:
        assert recorded.shape.image_size is not None
        resize_within(model, recorded.shape.image_size, letterbox)
    onnx.checker.check_model(model)
    atomic_save(path, lambda temporary: onnx.save(model, str(temporary)))


def translated(recorded: Recorded, opset: int) -> Any:
    """The recorded graph as onnx's ``ModelProto``, with readable names of its dimensions.

    Args:
        recorded: the graph, whatever its precision: this is float32.
        opset: version of ONNX's operators.

    Raises:
        UserError: if PyTorch does not write that version.
    """
    with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            recorded.program,
            recorded.example,
            input_names=list(recorded.input_names),
            output_names=list(recorded.output_names),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: Any = program.model_proto
    if all(used.version != opset for used in model.opset_import if not used.domain):  # which PyTorch does not say
        raise UserError(
            f"opset={opset}: PyTorch {torch.__version__} does not write it: use an older one, from {OLDEST_OPSET}"
        )
    names = {"images": ("batch", "channels", "height", "width"), "spans": ("batch",), "count": ("batch",)}
    for value in (*model.graph.input, *model.graph.output):
        known = names.get(value.name, ("batch", "queries"))
        for dimension, name in zip(value.type.tensor_type.shape.dim, known, strict=False):
            if dimension.dim_param:
                dimension.dim_param = name
    return model


def _halved(model: Any) -> Any:
    """Weights and computations of the model in float16; inputs, outputs and post-processing, in pixels, in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    after = [node.name for node in model.graph.node if "model." not in _scope(node)]
    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=after))
    _join_casts(converted.model.graph)
    converted.topological_sort()  # the converter appends its casts at the end
    return converted.model


def _join_casts(graph: Any) -> None:
    """Let no value go to float16 and back between two nodes that stay float32, as the converter has it."""
    from onnx import TensorProto

    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for node in casts.values():
        before = casts.get(node.input[0])
        if before is None or node.attribute[0].i != TensorProto.FLOAT:
            continue
        if before.attribute[0].i == TensorProto.FLOAT16:
            node.input[0] = before.input[0]


def _quantized(model: Any, recorded: Recorded, calibration: Iterable[NDArray[np.float32]]) -> Any:
    """Convolutions in int8, the rest as it was."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs: Iterator[NDArray[np.float32]] = iter(calibration)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            images = next(self.inputs, None)
            return None if images is None else recorded.inputs_with(images)

    integer = int8_nodes(model)
    kept = [node.name for node in model.graph.node if node.name not in integer]
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        plain, quantized = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, str(plain))
        with _quiet("root"):  # advice about a step that is done already
            quantize_static(
                str(plain),
                str(quantized),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                reduce_range=True,  # 7 bits: sums of 8 would overflow on processors without VNNI
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
            )
        return onnx.load(str(quantized))


def int8_nodes(model: Any) -> set[str]:
    """The names of the nodes that int8 is meant for: those of the backbone and of the encoder but for its attention."""
    return {
        node.name
        for node in model.graph.node
        if any(part in (scope := _scope(node)) for part in _INT8_PARTS)
        and not any(part in scope for part in _FLOAT_PARTS)
    }


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without the warnings of some loggers, and without Python's."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _scope(node: Any) -> str:
    return next((item.value for item in node.metadata_props if item.key == _SCOPES), "")
