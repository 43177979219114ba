"""The first part of an end-to-end OpenVINO graph: bytes of images of any size become the model's input.

Pillow's antialiased bilinear filter is two products with matrices of weights. OpenVINO's own operation for it
(Interpolate, ``bilinear_pillow``) takes seconds on the CPU whenever an image has another size than the one before.

Every number of pixels below is a whole number in float32, so that the weights are as exact as one division.
Constants are whole numbers too, which float16 holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def resize_within(model: Any, size: tuple[int, int], letterbox: bool) -> Any:
    """A graph of bytes ``images`` ``[B, H, W, C]`` and a threshold, from one of images, spans and threshold.

    Args:
        model: OpenVINO's, which is changed.
        size: (height, width) of the model's input.
        letterbox: whether images keep their aspect ratio, with a black margin at the right or below.

    Returns:
        the model for images of any size.
    """
    import openvino
    from openvino import opset13 as ops

    def numbers(*values: float) -> Any:
        return ops.constant(np.array(values, np.float32))

    images, spans, threshold = (model.input(name).node for name in ("images", "spans", "threshold"))
    taken = ops.parameter([images.partial_shape[0], -1, -1, images.partial_shape[1]], np.uint8, name="images")
    taken.set_layout(openvino.Layout("NHWC"))
    shape = ops.shape_of(taken, "i32")
    original = ops.convert(ops.slice(shape, *(ops.constant([index]) for index in (1, 3, 1))), "f32")
    whole = fitted = numbers(*size)
    if letterbox:  # the side that fills its own is exact, the other is rounded
        swapped = ops.constant(np.array([1, 0], np.int32))
        zero = ops.constant(np.int32(0))
        scaled = ops.divide(
            ops.multiply(original, ops.gather(whole, swapped, zero)), ops.gather(original, swapped, zero)
        )
        fitted = ops.maximum(ops.minimum(ops.round(scaled, "half_to_even"), whole), numbers(1))
    vertical, horizontal = (
        _weights(ops, _side(ops, index, original), _side(ops, index, fitted), size[index]) for index in (0, 1)
    )
    planes = ops.convert(ops.transpose(taken, ops.constant([0, 3, 1, 2])), "f32")
    rows = _whole(ops, ops.matmul(planes, horizontal, False, True))
    pixels = _whole(ops, ops.matmul(vertical, rows, False, False))
    floats = ops.divide(pixels, numbers(255))
    seen = ops.divide(ops.multiply(original, whole), fitted)
    batch = ops.slice(shape, *(ops.constant([index]) for index in (0, 1, 1)))
    spanned = ops.broadcast(seen, ops.concat([batch, ops.constant(np.array([2], np.int32))], 0))
    for parameter, made in ((images, floats), (spans, spanned)):
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(made.output(0))
    taken.output(0).get_tensor().set_names({"images"})
    return openvino.Model(model.get_results(), [taken, threshold], "rtdetrv2")


def _side(ops: Any, index: int, size: Any) -> Any:
    """The height (0) or the width (1) of a size."""
    return ops.gather(size, ops.constant(np.array([index], np.int32)), ops.constant(np.int32(0)))


def _weights(ops: Any, side: Any, fitted: Any, length: int) -> Any:
    """Weights ``[length, side]`` of Pillow's bilinear filter from ``side`` pixels to ``fitted``; zero beyond these.

    Output i lies at (i + 0.5) side / fitted of the input. A pixel counts by a triangle around that, which reaches one
    pixel of the coarser of the two.
    """
    one, two = (ops.constant(np.array([value], np.float32)) for value in (1, 2))
    index = ops.convert(ops.constant(np.arange(length, dtype=np.int32)[:, None]), "f32")
    scalar = ops.squeeze(ops.convert(side, "i32"), ops.constant([0]))
    pixel = ops.range(ops.constant(np.int32(0)), scalar, ops.constant(np.int32(1)), "f32")
    centre = ops.multiply(ops.add(ops.multiply(index, two), one), side)
    distance = ops.abs(ops.subtract(ops.multiply(ops.add(ops.multiply(pixel, two), one), fitted), centre))
    reach = ops.multiply(ops.maximum(side, fitted), two)
    triangle = ops.relu(ops.subtract(one, ops.divide(distance, reach)))
    total = ops.reduce_sum(triangle, ops.constant([1]), True)
    return ops.select(ops.less(index, fitted), ops.divide(triangle, total), ops.constant(np.float32(0)))


def _whole(ops: Any, values: Any) -> Any:
    """Rounded to whole levels, as Pillow does after each of the two passes."""
    return ops.floor(ops.add(values, ops.constant(np.array([0.5], np.float32))))
