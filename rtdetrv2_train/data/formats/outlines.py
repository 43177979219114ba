"""Boxes around outlines: the smallest box with upright sides that holds a drawn shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""
Point = tuple[float, float]


def box_around(points: Sequence[Point]) -> Box:
    """The box around points, of which there is at least one."""
    columns, rows = [point[0] for point in points], [point[1] for point in points]
    left, top = min(columns), min(rows)
    return left, top, max(columns) - left, max(rows) - top


def box_of_corners(left: float, top: float, right: float, bottom: float) -> Box:
    """The box between two opposite corners, whichever two they are."""
    return box_around([(left, top), (right, bottom)])


def box_around_turned(box: Box, degrees: float) -> Box:
    """The box around a rectangle that is turned about its middle, as far as given, either way round."""
    if not degrees:
        return box
    left, top, width, height = box
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    outer_width, outer_height = width * cosine + height * sine, width * sine + height * cosine
    return left + (width - outer_width) / 2, top + (height - outer_height) / 2, outer_width, outer_height


def box_around_ellipse(centre: Point, radii: Point, degrees: float) -> Box:
    """The box around an ellipse that is turned about its middle.

    Args:
        centre: x and y in pixels.
        radii: along x and along y before it is turned, in pixels.
        degrees: how far it is turned, either way round.
    """
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    across = math.hypot(radii[0] * cosine, radii[1] * sine)
    down = math.hypot(radii[0] * sine, radii[1] * cosine)
    return centre[0] - across, centre[1] - down, 2 * across, 2 * down


def box_of_runs(runs: Sequence[int], width: int, height: int) -> Box | None:
    """The box around the set pixels of a mask, within the mask; None where it has none.

    Args:
        runs: lengths of runs of pixels, row by row, the first of unset ones.
        width: of the mask, in pixels, at least 1.
        height: of the mask, in pixels.

    Raises:
        ValueError: if the runs are longer than the mask.
    """
    if sum(runs) > width * height:
        raise ValueError(f"the runs of the mask have {sum(runs)} pixels, more than {width} x {height}")
    left, right, top, bottom, start = width, 0, height, 0, 0
    for position, length in enumerate(runs):
        if position % 2 and length:
            first_row, last_row = start // width, (start + length - 1) // width
            over_rows = first_row != last_row
            left = min(left, 0 if over_rows else start % width)
            right = max(right, width if over_rows else (start + length - 1) % width + 1)
            top, bottom = min(top, first_row), max(bottom, last_row + 1)
        start += length
    return (float(left), float(top), float(right - left), float(bottom - top)) if right else None
