"""The pictures of a report: the best, typical and worst images, and cut-outs of mistakes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.evaluation.analysis.analysis import Analysis
from rtdetrv2_train.evaluation.analysis.mistakes import BACKGROUND, KINDS, MISSED, RIGHT
from rtdetrv2_train.report.embedding import (
    CUT_OUT_SIDE,
    IMAGE_SIDE,
    Picture,
    as_data_url,
    drawn_box,
    surroundings,
)

ReadImage = Callable[[int], NDArray[np.uint8] | None]
"""From an image id to RGB bytes ``[H, W, 3]``, or None where the image cannot be read."""

IMAGES_OF_EACH_GROUP = 6
MISTAKES_OF_EACH_KIND = 8
_LOWEST_SCORE = 0.05
_MOST_BOXES = 100


def chosen_images(analysis: Analysis, read: ReadImage, names: dict[int, str]) -> dict[str, list[Picture]]:
    """The images with the highest, the middle and the lowest F1 among those with something to find.

    Among images with the same F1, those with the most boxes come first.

    Args:
        analysis: of the detections.
        read: reads an image by its id.
        names: file name of each image id.
    """
    boxes = analysis.boxes
    wanted = np.bincount(boxes.truth_images[~boxes.truth_crowd], minlength=len(boxes.image_ids))
    candidates = np.flatnonzero(wanted)
    f1, many = analysis.image_f1[candidates], wanted[candidates]
    middle = np.abs(f1 - np.median(f1)) if len(f1) else f1
    groups = {}
    for group, order in (("Worst", (-many, f1)), ("Typical", (-many, middle)), ("Best", (-many, -f1))):
        pictures: list[Picture] = []
        for image in candidates[np.lexsort(order)]:
            pixels = read(int(boxes.image_ids[image]))
            if pixels is not None:
                title = f"{names[int(boxes.image_ids[image])]} · F1 {analysis.image_f1[image]:.2f}"
                pictures.append(_whole(analysis, int(image), pixels, title))
            if len(pictures) == IMAGES_OF_EACH_GROUP:
                break
        groups[group] = pictures
    return groups


def chosen_mistakes(analysis: Analysis, read: ReadImage) -> dict[str, list[Picture]]:
    """For each kind, the mistakes with the highest score; and the largest missed boxes."""
    boxes, mistakes = analysis.boxes, analysis.mistakes
    groups = {}
    for number in range(RIGHT + 1, len(KINDS)):
        rows = np.flatnonzero(mistakes.kind == number)
        rows = rows[np.argsort(-boxes.found_scores[rows], kind="stable")]
        groups[KINDS[number]] = _cut_outs(
            analysis,
            [(int(row), int(mistakes.meant[row])) for row in rows[: 4 * MISTAKES_OF_EACH_KIND]],
            read,
        )
    rows = np.flatnonzero(mistakes.missed)
    rows = rows[np.argsort(-boxes.truth_boxes[rows, 2:].prod(1), kind="stable")]
    groups[MISSED] = _cut_outs(analysis, [(-1, int(row)) for row in rows[: 4 * MISTAKES_OF_EACH_KIND]], read)
    return groups


def _whole(analysis: Analysis, image: int, pixels: NDArray[np.uint8], title: str) -> Picture:
    boxes, matches = analysis.boxes, analysis.matches
    drawn = [
        drawn_box(
            boxes.truth_boxes[row], boxes.truth_classes[row], None, "crowd" if boxes.truth_crowd[row] else "truth"
        )
        for row in np.flatnonzero(boxes.truth_images == image)
    ]
    rows = np.flatnonzero((boxes.found_images == image) & (boxes.found_scores >= _LOWEST_SCORE) & matches.counted)
    for row in rows[np.argsort(matches.place[rows])][:_MOST_BOXES]:
        kind = KINDS[analysis.mistakes.kind[row]]
        drawn.append(drawn_box(boxes.found_boxes[row], boxes.found_classes[row], float(boxes.found_scores[row]), kind))
    height, width = pixels.shape[:2]
    return Picture(title, as_data_url(Image.fromarray(pixels), IMAGE_SIDE), width, height, drawn)


def _cut_outs(analysis: Analysis, wanted: list[tuple[int, int]], read: ReadImage) -> list[Picture]:
    """Cut-outs around a detection (or -1) and the box it meant (or -1)."""
    boxes = analysis.boxes
    pictures: list[Picture] = []
    for found, truth in wanted:
        if len(pictures) == MISTAKES_OF_EACH_KIND:
            break
        drawn = []
        if truth >= 0:
            image = boxes.truth_images[truth]
            drawn.append(drawn_box(boxes.truth_boxes[truth], boxes.truth_classes[truth], None, "truth"))
        if found >= 0:
            image = boxes.found_images[found]
            kind = KINDS[analysis.mistakes.kind[found]]
            drawn.append(
                drawn_box(boxes.found_boxes[found], boxes.found_classes[found], float(boxes.found_scores[found]), kind)
            )
        pixels = read(int(boxes.image_ids[image]))
        if pixels is None:
            continue
        left, top, right, bottom = surroundings(np.array([box["box"] for box in drawn]), pixels.shape)
        if right <= left or bottom <= top:
            continue
        for box in drawn:
            box["box"] = [round(box["box"][0] - left, 1), round(box["box"][1] - top, 1), *box["box"][2:]]
        cut = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
        title = _explained(analysis, found, truth)
        pictures.append(Picture(title, as_data_url(cut, CUT_OUT_SIDE), right - left, bottom - top, drawn))
    return pictures


def _explained(analysis: Analysis, found: int, truth: int) -> str:
    boxes = analysis.boxes
    names = boxes.class_names
    real = names[boxes.truth_classes[truth]] if truth >= 0 else ""
    if found < 0:
        return f"{real} missed"
    what = f"{names[boxes.found_classes[found]]} {boxes.found_scores[found]:.2f}"
    if analysis.mistakes.kind[found] == BACKGROUND:
        return f"{what} on background"
    return f"{what} on {real}"
