"""The rows of a YOLO label file.

Coordinates are shares of the width and the height of the image. The number of values of a row tells what it is:

    c cx cy w h                       a box; c is the index of the class
    c cx cy w h confidence            a prediction that is used as a label
    c cx cy w h kx ky [v] ...         a pose, where ``data.yaml`` has a ``kpt_shape`` of as many values
    c x1 y1 x2 y2 x3 y3 ...           a polygon, also the four corners of an oriented box; may end with a confidence
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container
from typing import NamedTuple

_MOST = 2  # a share of the image beyond this is a number of pixels
_BOM = b"\xef\xbb\xbf"


class RowError(Exception):
    """A row cannot be read.

    Attributes:
        line: its number in the file, from 1.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


Box = tuple[float, float, float, float]
"""Left, top, width and height as shares of the image; as in the file, not clipped."""


class Rows(NamedTuple):
    """The objects of a label file.

    Attributes:
        objects: line from 1, index of the class and box of each object.
        faults: lines of boxes that cannot be used, and why.
        repeated: how many more rows are the same as an earlier one.
    """

    objects: Collection[tuple[int, float, Box]]
    faults: list[tuple[int, str]]
    repeated: int


def read_rows(text: bytes, classes: Container[float], keypoints: int = 0) -> Rows:
    """The objects of a label file.

    Args:
        text: content of the file.
        classes: indices of the classes.
        keypoints: numbers that a pose has after its box; 0: there are no poses.

    Raises:
        RowError: if a row is not numbers, has too few of them, or is of an unknown class.
    """
    poses = (5 + keypoints, 6 + keypoints) if keypoints else ()
    found: dict[tuple[float, ...], tuple[int, float, Box]] = {}
    faults = []
    count = 0
    odd = b"_" in text  # Python would read 1_2 as 12
    for line, row in enumerate(text.removeprefix(_BOM).splitlines(), 1):
        try:
            values = list(map(float, row.split()))
        except ValueError:
            values = []
        length = len(values)
        if length < 5 or odd:
            if not row.strip():
                continue
            _check_numbers(row, line, length)
        label = values[0]
        if label not in classes:
            raise RowError(line, _unknown(label))
        if length < 7 or length in poses:
            del values[5:]
            _, x, y, width, height = values
            left, top = x - width / 2, y - height / 2
        else:
            if 2 in values[7::3] and (length - 5) % 3 == 0 and set(values[7::3]) <= {0, 1, 2}:
                raise RowError(line, "a pose with visibilities: give kpt_shape in data.yaml, to tell it from a polygon")
            left, top, width, height = _around(values[1 : length - 1 + length % 2])
        # Written so that it is false for NaN.
        if (
            -_MOST <= left <= _MOST
            and -_MOST <= top <= _MOST
            and -_MOST <= width <= _MOST
            and -_MOST <= height <= _MOST
        ):
            found.setdefault(tuple(values), (line, label, (left, top, width, height)))
            count += 1
        else:
            faults.append((line, _fault(values)))
    return Rows(found.values(), faults, count - len(found))


def _check_numbers(row: bytes, line: int, length: int) -> None:
    if not length or b"_" in row:
        text = b" ".join(row.split()).decode(errors="replace")
        raise RowError(line, f"{text!r:.60} is not numbers with blanks between them")
    if length < 5:
        raise RowError(line, f"{length} numbers, where a box has 5")


def _around(points: list[float]) -> Box:
    """The box around a polygon, xywh; not a number where one of its points is none."""
    if not math.isfinite(sum(points)):
        return math.nan, math.nan, math.nan, math.nan
    across, down = points[::2], points[1::2]
    left, top = min(across), min(down)
    return left, top, max(across) - left, max(down) - top


def _unknown(label: float) -> str:
    return f"class {label:g}" if label.is_integer() else f"class {label:g}, which is no whole number"


def _fault(values: list[float]) -> str:
    if not math.isfinite(sum(values)):
        return f"the row {_brief(values)} has numbers that are not finite"
    return f"the row {_brief(values)} is far outside: coordinates are shares of the width and height of the image"


def _brief(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values[:5]) + " ..." * (len(values) > 5)
