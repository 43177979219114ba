"""Writing OpenVINO's files: float32, float16 (weights) and int8.

The graph goes through ONNX, which OpenVINO reads with any batch and size; of a program of ``torch.export`` it forgets
fixed dimensions, and does not know the minimum of two sizes.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.onnx import OPSET, int8_nodes, translated
from rtdetrv2_train.export.openvino_resize import resize_within
from rtdetrv2_train.files import atomic_save

_LAYOUTS = {
    "images": "NCHW",
    "spans": "N?",
    "threshold": "?",
    "logits": "N??",
    "boxes": "N??",
    "labels": "N?",
    "scores": "N?",
    "count": "N",
}


def write_openvino(
    recorded: Recorded, path: Path, calibration: Iterable[NDArray[np.float32]], letterbox: bool | None
) -> None:
    """Write an OpenVINO model: an ``.xml`` file, and the weights beside it in a ``.bin`` file of the same name.

    Args:
        recorded: the graph.
        path: of the ``.xml`` file.
        calibration: inputs ``[1, C, H, W]`` for int8.
        letterbox: for an end-to-end graph: whether images keep their aspect ratio; None for a raw graph.
    """
    import openvino

    batch = recorded.shape.batch
    if recorded.precision == "int8" and batch not in (None, 1):  # nncf corrects biases with batches of 1
        recorded = replace(recorded, shape=replace(recorded.shape, batch=None))
    translation = translated(recorded, OPSET)
    model = openvino.Core().read_model(translation.SerializeToString())
    _take_apart(model)
    if recorded.precision == "int8":
        model = _quantized(model, int8_nodes(translation), recorded, calibration)
    if batch != recorded.shape.batch:
        model.reshape({p: [batch, *p.partial_shape[1:]] for p in model.inputs if p.partial_shape[0].is_dynamic})
    for port in (*model.inputs, *model.outputs):
        (name,) = port.get_names() & {*recorded.input_names, *recorded.output_names}
        port.get_tensor().set_names({name})
        if name in _LAYOUTS:
            port.node.set_layout(openvino.Layout(_LAYOUTS[name]))
    if letterbox is not None:
        assert recorded.shape.image_size is not None
        model = resize_within(model, recorded.shape.image_size, letterbox)
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        written = Path(folder, path.name)
        openvino.save_model(model, written, compress_to_fp16=recorded.precision == "float16")
        for suffix in (".bin", ".xml"):  # the .xml last: it stands for both
            atomic_save(path.with_suffix(suffix), partial(shutil.copyfile, written.with_suffix(suffix)))


def _take_apart(model: Any) -> None:
    """Replace every convolution whose channels are split at once by a convolution for each part.

    OpenVINO splits the channels of a map slowly where they are the innermost dimension, as after its convolutions.
    """
    from openvino import opset13 as ops
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    for split in [node for node in model.get_ordered_ops() if node.get_type_name() in ("Split", "VariadicSplit")]:
        added = split.input_value(0).get_node()
        if added.get_type_name() != "Add" or added.input_value(0).get_node().get_type_name() != "Convolution":
            continue
        conv, bias = added.input_value(0).get_node(), added.input_value(1).get_node()
        kernel, offset = conv.input_value(1).get_node().data, bias.data
        first = 0
        for output in split.outputs():
            parts = slice(first, first := first + output.partial_shape[1].get_length())
            part = ops.convolution(
                conv.input_value(0),
                ops.constant(kernel[parts]),
                *(conv.get_attributes()[name] for name in ("strides", "pads_begin", "pads_end", "dilations")),
                name=f"{conv.get_friendly_name()}/{output.index}",
            )
            joined = ops.add(part, ops.constant(offset[:, parts]))
            for target in output.get_target_inputs():
                target.replace_source_output(joined.output(0))


def _quantized(model: Any, names: set[str], recorded: Recorded, calibration: Iterable[NDArray[np.float32]]) -> Any:
    """Convolutions of some nodes of the ONNX graph in int8, with what lies between them; the rest as it was."""
    import nncf

    inputs = [recorded.inputs_with(images) for images in calibration]
    kept = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() not in ("Constant", "Parameter", "Result")
        and node.get_friendly_name().split("/")[0] not in names
    ]
    exact = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)  # also where there is no VNNI
    with _quiet("nncf"):
        return nncf.quantize(
            model,
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=kept, types=["MatMul"], validate=False),
            advanced_parameters=exact,
        )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without what a package says of its progress."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
