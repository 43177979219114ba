"""What the four numbers of a box mean, found out from all boxes of a set where nothing says it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

Boxes = NDArray[np.float64]

_MOST_SHARE = 2.0  # of a side of the image; larger numbers are pixels
_ROUNDING, _ROUNDING_SHARE = 2.0, 0.01  # by which a box may reach out of its image: pixels, and of its side
_FEW = 0.005  # of the boxes, which may be wrong
_MANY = 0.2


def _of_corners(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _of_middle(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


# In the order in which they are taken where several fit.
_FORMS: dict[str, Callable[[Boxes], Boxes]] = {
    "xywh": lambda boxes: boxes,
    "xyxy": _of_corners,
    "cxcywh": _of_middle,
}


@dataclass(frozen=True)
class BoxForm:
    """What the four numbers are.

    Attributes:
        name: ``xywh``: left, top, width, height; ``xyxy``: two corners; ``cxcywh``: middle, width, height.
        shares: whether they are shares of the image, not pixels.
    """

    name: str
    shares: bool

    def in_pixels(self, boxes: Boxes, sizes: NDArray[np.int64]) -> Boxes:
        """Boxes as xywh in pixels, float64 ``[N, 4]``.

        Args:
            boxes: float64 ``[N, 4]``, in this form.
            sizes: int64 ``[N, 2]``, height and width in pixels of the image of each box.
        """
        scaled = boxes * np.tile(sizes[:, ::-1], 2) if self.shares else boxes
        return _FORMS[self.name](scaled)


def form_of(boxes: Boxes, sizes: NDArray[np.int64], labels: Path) -> BoxForm:
    """The form that boxes are in: the one in which they lie within their images and have no negative sides.

    Says in the log which it is, and warns where another would fit as well.

    Args:
        boxes: float64 ``[N, 4]``.
        sizes: int64 ``[N, 2]``, height and width in pixels of the image of each box.
        labels: where the boxes are from, for messages.

    Raises:
        UserError: if they are in none.
    """
    if not len(boxes):
        return BoxForm("xywh", shares=False)
    shares = bool(np.abs(boxes).max() <= _MOST_SHARE)
    wrong = {name: _share_of_wrong(BoxForm(name, shares).in_pixels(boxes, sizes), sizes) for name in _FORMS}
    best = min(wrong, key=lambda name: wrong[name])
    fitting = [name for name in _FORMS if wrong[name] <= _FEW] or [best]
    if wrong[best] > _MANY:
        raise UserError(
            f"'{labels}' has boxes that are neither xywh nor xyxy nor cxcywh: as {best}, {wrong[best]:.0%} of them "
            "would lie outside their images; write them as left, top, width and height in pixels"
        )
    unit = "shares of the image" if shares else "pixels"
    if len(fitting) > 1:
        logger.warning(
            "'%s': boxes may be %s, all of which fit; they are taken for %s in %s: should pictures with boxes look "
            "wrong, write them as left, top, width and height in pixels",
            labels,
            " or ".join(fitting),
            fitting[0],
            unit,
        )
    else:
        logger.info("'%s': boxes are %s in %s, by their values", labels, fitting[0], unit)
    return BoxForm(fitting[0], shares)


def _share_of_wrong(boxes: Boxes, sizes: NDArray[np.int64]) -> float:
    """How many boxes have a negative side, or reach out of their image."""
    sides = sizes[:, ::-1].astype(np.float64)
    slack = np.maximum(_ROUNDING, _ROUNDING_SHARE * sides)
    corner, extent = boxes[:, :2], boxes[:, 2:]
    wrong = (extent < 0) | (corner < -slack) | (corner + extent > sides + slack)
    return float(wrong.any(axis=1).mean())
