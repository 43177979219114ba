"""The first part of an end-to-end ONNX graph: bytes of images of any size become the model's input.

Resize with ``antialias`` on bytes is Pillow's bilinear filter in ONNX Runtime, up to one level of 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_BYTES, _FLOATS = "images", "images_in_0_1"


def resize_within(model: Any, size: tuple[int, int], letterbox: bool) -> None:
    """Have an ONNX graph of images, spans and threshold take bytes ``images`` ``[B, H, W, C]`` and a threshold.

    Args:
        model: onnx's ``ModelProto``, which is changed.
        size: (height, width) of the model's input.
        letterbox: whether images keep their aspect ratio, with a black margin at the right or below.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    following = list(graph.node)
    for node in following:
        node.input[:] = [_FLOATS if name == _BYTES else name for name in node.input]
    batch, channels = (
        inputs[_BYTES].type.tensor_type.shape.dim[0],
        inputs[_BYTES].type.tensor_type.shape.dim[1].dim_value,
    )
    taken = helper.make_tensor_value_info(
        _BYTES, TensorProto.UINT8, [batch.dim_param or batch.dim_value, "height", "width", channels]
    )
    threshold = inputs["threshold"]
    del graph.input[:], graph.node[:]
    graph.input.extend([taken, threshold])

    def constant(value: Any) -> str:
        name = f"resize_constant_{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(operator: str, *sources: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"resize_{len(graph.node)}_{operator.lower()}"
        graph.node.append(helper.make_node(operator, sources, [name], name=name, **attributes))
        return name

    first, second, fourth = (constant([index]) for index in (0, 1, 3))
    shape = add("Shape", _BYTES)
    count = add("Slice", shape, first, second)
    original = add("Cast", add("Slice", shape, second, fourth), to=TensorProto.DOUBLE)
    fitted, spanned = constant(size), original
    if letterbox:
        whole = constant(np.array(size, np.float64))
        factor = add("ReduceMin", add("Div", whole, original), keepdims=0)
        rounded = add("Max", add("Round", add("Mul", original, factor)), constant(np.array(1.0)))
        fitted = add("Cast", rounded, to=TensorProto.INT64)
        spanned = add("Div", add("Mul", original, whole), rounded)
    target = add("Concat", count, fitted, constant([channels]), axis=0)
    pixels = add("Resize", _BYTES, "", "", target, mode="linear", antialias=1)
    if letterbox:
        margin = add("Sub", constant(size), fitted)
        pixels = add("Pad", pixels, add("Concat", constant([0] * 5), margin, first, axis=0))
    floats = add("Cast", add("Transpose", pixels, perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    add("Mul", floats, constant(np.array(1 / 255, np.float32)), output=_FLOATS)
    spans = add("Cast", spanned, to=TensorProto.FLOAT)
    add("Expand", spans, add("Concat", count, constant([2]), axis=0), output="spans")
    graph.node.extend(following)
