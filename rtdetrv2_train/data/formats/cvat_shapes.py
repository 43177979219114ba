"""Boxes of the shapes of CVAT's XML."""

from __future__ import annotations

from collections.abc import Mapping

from rtdetrv2_train.data.formats.coco_entries import brief, number
from rtdetrv2_train.data.formats.outlines import (
    Box,
    box_around,
    box_around_ellipse,
    box_around_turned,
    box_of_corners,
    box_of_runs,
)

SHAPES = ("box", "polygon", "ellipse", "mask")
"""Elements that bound an object."""
OTHER_SHAPES = ("polyline", "points", "cuboid", "skeleton")
"""Elements that bound none, or not in the plane of the image."""


def box_of(kind: str, values: Mapping[str, str]) -> Box:
    """The box around a shape.

    Args:
        kind: name of the element, one of `SHAPES`.
        values: its attributes.

    Raises:
        ValueError: if an attribute is missing or no number; the message is the reason.
    """
    turn = _value(values, "rotation") if "rotation" in values else 0.0
    if kind == "box":
        corners = [_value(values, key) for key in ("xtl", "ytl", "xbr", "ybr")]
        return box_around_turned(box_of_corners(*corners), turn)
    if kind == "ellipse":
        x, y, across, down = (_value(values, key) for key in ("cx", "cy", "rx", "ry"))
        return box_around_ellipse((x, y), (across, down), turn)
    if kind == "polygon":
        return _box_of_points(values.get("points", ""))
    return _box_of_mask(values)


def _value(values: Mapping[str, str], key: str) -> float:
    found = number(values.get(key))
    if found is None:
        raise ValueError(f"{key} {brief(values.get(key))} is not a finite number")
    return float(found)


def _box_of_points(text: str) -> Box:
    points = []
    for pair in text.split(";"):
        found = [number(value) for value in pair.split(",")]
        if len(found) != 2 or found[0] is None or found[1] is None:
            raise ValueError(f"points {brief(text)} are not pairs of finite numbers")
        points.append((float(found[0]), float(found[1])))
    if len(points) < 3:
        raise ValueError(f"a polygon needs 3 points, and has {len(points)}")
    return box_around(points)


def _box_of_mask(values: Mapping[str, str]) -> Box:
    """The box around the pixels of a mask; its own box is at times some pixels wider."""
    left, top, width, height = (_value(values, key) for key in ("left", "top", "width", "height"))
    if not values.get("rle"):
        return left, top, width, height
    runs = [number(value) for value in values["rle"].split(",")]
    lengths = [int(run) for run in runs if run is not None and run >= 0]
    if len(lengths) != len(runs) or width < 1:
        raise ValueError(f"rle {brief(values['rle'])} of width {width:g} is no mask")
    inner = box_of_runs(lengths, int(width), int(height))
    if inner is None:
        raise ValueError("the mask has no pixel")
    return left + inner[0], top + inner[1], inner[2], inner[3]
