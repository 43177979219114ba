"""Pictures of boxes: one image, or ground truth beside prediction for several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from rtdetrv2_train.viz.colours import Colour, class_colour, contrasting
from rtdetrv2_train.viz.fonts import Font, font_for, shown_names

Rectangle = tuple[int, int, int, int]

_BACKGROUND: Colour = (255, 255, 255)
_INK: Colour = (30, 30, 30)
_PADDING = 2
_GAP = 6
_GAP_BETWEEN_PAIRS = 24
_HEADING_SIZE = 15
_HEADING_HEIGHT = 24


class Marks(NamedTuple):
    """What to draw on an image of the grid.

    Attributes:
        boxes: ``[n, 4]`` xyxy in pixels of the image, array or tensor on the CPU.
        labels: ``[n]`` class indices.
        scores: ``[n]`` in [0, 1], or None for ground truth.
    """

    boxes: Any
    labels: Any
    scores: Any = None


def draw_detections(
    image: np.ndarray,
    boxes: Any,
    labels: Any,
    scores: Any | None,
    class_names: Sequence[str],
    *,
    minimum_score: float = 0.0,
) -> Image.Image:
    """Draw boxes with their class names, and their scores where given.

    A label stands above its box, or where there is no room inside its top edge; the best detections choose first.

    Args:
        image: uint8 ``[H, W, C]``, of which is drawn on what `visible` shows; it is not changed.
        boxes: ``[n, 4]`` xyxy in pixels, array or tensor on the CPU.
        labels: ``[n]`` class indices.
        scores: ``[n]`` in [0, 1], or None for ground truth.
        class_names: name of each class index.
        minimum_score: detections below it are not drawn.

    Returns:
        An RGB picture of the image's size.

    Raises:
        ValueError: if the image is not uint8 ``[H, W, C]``, or boxes, labels and scores differ in number.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"an image must be uint8 [H, W, C], not {image.dtype} {list(image.shape)}")
    picture = Image.fromarray(visible(image))
    items = _items(Marks(boxes, labels, scores), class_names, minimum_score)
    canvas = ImageDraw.Draw(picture)
    length = (picture.width * picture.height) ** 0.5
    # Where the objects are small, in a large image, so are lines and letters: they must not hide what they point at.
    typical = float(np.median([_side(item.box) for item in items])) if items else length
    line_width = max(1, round(min(length / 160, typical / 24)))
    font_size = max(10, round(min(length / 38, typical / 5)))
    for item in reversed(items):
        low, high = _drawable(item.box, picture.size)
        canvas.rectangle((*low, *high), outline=item.colour, width=line_width)
    taken: list[Rectangle] = []
    for item in items:
        font = font_for(item.text, font_size)
        place = _place(item, canvas, font, picture.size, taken)
        taken.append(place)
        canvas.rectangle(place, fill=item.colour)
        position = (place[0] + _PADDING, place[1] + _PADDING)
        canvas.text(position, item.text, fill=contrasting(item.colour), font=font, anchor="la")
    return picture


def visible(image: np.ndarray) -> np.ndarray:
    """An image of C channels as a picture ``[H, W, 3]``: the first three as RGB, or the first as grey."""
    channels = image.shape[2]
    return np.ascontiguousarray(image[..., :3] if channels >= 3 else image[..., :1].repeat(3, axis=2))


def prediction_grid(
    images: Sequence[np.ndarray],
    ground_truth: Sequence[Marks | tuple[Any, ...]],
    predictions: Sequence[Marks | tuple[Any, ...]],
    class_names: Sequence[str],
    columns: int = 2,
    *,
    cell: int = 320,
    minimum_score: float = 0.0,
) -> Image.Image:
    """Pairs of pictures: the ground truth on the left, the prediction on the right.

    Args:
        images: M of uint8 ``[H, W, C]``, RGB or as `visible` shows them, of any sizes.
        ground_truth: for each image its boxes and labels.
        predictions: for each image its boxes, labels and scores.
        class_names: name of each class index.
        columns: pairs in a row.
        cell: side in pixels of the square that each image is scaled to fit; small images are enlarged before anything
            is drawn on them, so that labels stay readable.
        minimum_score: detections below it are not drawn.

    Returns:
        One RGB picture.

    Raises:
        ValueError: if there are no images, or not as many ground truths and predictions.
    """
    if not images or not len(images) == len(ground_truth) == len(predictions):
        raise ValueError(
            f"a grid needs images, each with ground truth and prediction, not {len(images)}, {len(ground_truth)} "
            f"and {len(predictions)}"
        )
    columns = min(columns, len(images))
    pairs = [
        tuple(_scaled(image, Marks(*marks), cell, class_names, minimum_score) for marks in (truth, prediction))
        for image, truth, prediction in zip(images, ground_truth, predictions, strict=True)
    ]
    rows = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    heights = [max(pair[0].height for pair in row) for row in rows]
    pair_width = 2 * cell + _GAP
    width = columns * pair_width + (columns - 1) * _GAP_BETWEEN_PAIRS + 2 * _GAP
    grid = Image.new("RGB", (width, sum(heights) + len(rows) * (_HEADING_HEIGHT + _GAP) + _GAP), _BACKGROUND)
    canvas = ImageDraw.Draw(grid)
    font = font_for("", _HEADING_SIZE)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, pair in enumerate(row):
            left = _GAP + column * (pair_width + _GAP_BETWEEN_PAIRS)
            for heading, picture in zip(("Ground truth", "Prediction"), pair, strict=True):
                indented = left + (cell - picture.width) // 2
                canvas.text((indented, top + _HEADING_HEIGHT // 2), heading, fill=_INK, font=font, anchor="lm")
                grid.paste(picture, (indented, top + _HEADING_HEIGHT))
                left += cell + _GAP
        top += _HEADING_HEIGHT + height + _GAP
    return grid


@dataclass(frozen=True)
class _Item:
    box: tuple[float, float, float, float]
    text: str
    colour: Colour


def _items(marks: Marks, class_names: Sequence[str], minimum_score: float) -> list[_Item]:
    """What to draw, best first."""
    boxes = np.asarray(marks.boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.asarray(marks.labels, dtype=np.int64).reshape(-1)
    scores = None if marks.scores is None else np.asarray(marks.scores, dtype=np.float64).reshape(-1)
    if len(boxes) != len(labels) or (scores is not None and len(scores) != len(labels)):
        of_scores = "" if scores is None else f", {len(scores)} scores"
        raise ValueError(f"boxes do not fit together: {len(boxes)} boxes, {len(labels)} labels{of_scores}")
    # The largest of the ground truth first: a smaller box's label then gives way, not the frame that it lies in.
    names = shown_names(tuple(class_names))
    order = np.argsort(-_areas(boxes) if scores is None else -scores, kind="stable")
    items = []
    for i in order:
        if scores is not None and scores[i] < minimum_score:
            continue
        if not np.isfinite(boxes[i]).all():
            continue
        name = names[labels[i]]
        text = name if scores is None else f"{name} {scores[i]:.2f}"
        items.append(_Item(tuple(boxes[i].tolist()), text, class_colour(int(labels[i]))))
    return items


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _side(box: tuple[float, float, float, float]) -> float:
    """Of a square of the same area."""
    return max((box[2] - box[0]) * (box[3] - box[1]), 0.0) ** 0.5


def _scaled(
    image: np.ndarray, marks: Marks, cell: int, class_names: Sequence[str], minimum_score: float
) -> Image.Image:
    height, width = image.shape[:2]
    factor = cell / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = Image.fromarray(visible(image)).resize(size, Image.Resampling.BICUBIC)
    stretch = np.array([size[0] / width, size[1] / height] * 2)
    boxes = np.asarray(marks.boxes, dtype=np.float64).reshape(-1, 4) * stretch
    return draw_detections(
        np.asarray(resized), boxes, marks.labels, marks.scores, class_names, minimum_score=minimum_score
    )


def _drawable(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corners on the pixel grid and inside the picture; a box of no extent becomes a point."""
    left, right = (min(max(round(x), 0), size[0] - 1) for x in (box[0], box[2]))
    top, bottom = (min(max(round(y), 0), size[1] - 1) for y in (box[1], box[3]))
    return (left, top), (max(left, right), max(top, bottom))


def _place(
    item: _Item,
    canvas: ImageDraw.ImageDraw,
    font: Font,
    size: tuple[int, int],
    taken: Sequence[Rectangle],
) -> Rectangle:
    """Where the label goes: the first place in the picture that covers no other label, or else the first at all."""
    _, _, text_width, text_height = canvas.textbbox((0, 0), item.text, font=font, anchor="la")
    width, height = round(text_width) + 2 * _PADDING, round(text_height) + 2 * _PADDING
    inside = [
        (left, top, left + width, top + height)
        for left, top in _places(item, width, height, size)
        if top >= 0 and top + height <= size[1]
    ]
    # A picture lower than a line of text has room for no label.
    candidates = inside or [(0, 0, width, height)]
    return next((place for place in candidates if not any(_overlap(place, other) for other in taken)), candidates[0])


def _places(item: _Item, width: int, height: int, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    (box_left, box_top), (box_right, box_bottom) = _drawable(item.box, size)
    left, right = (max(0, min(x, size[0] - width)) for x in (box_left, box_right - width))
    if box_top < height:
        yield left, box_top
        yield right, box_top
    yield left, box_top - height
    yield right, box_top - height
    yield left, box_bottom + 1
    yield right, box_bottom + 1
    yield left, box_top


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
