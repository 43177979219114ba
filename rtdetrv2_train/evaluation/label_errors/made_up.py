"""Labels that are wrong on purpose: what errors look like to this detector on this set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.label_errors.evidence import SAME_OBJECT, Floats, Ints, Labels, crowding

_MOST_MOVED, _MOST_STRETCHED = 0.8, 0.4  # of a side; the logarithm of a factor
_OVERLAP_OF_MOVED = (0.1, 0.6)  # IoU with the right place


def moved(right: Labels, generator: np.random.Generator) -> Labels:
    """Labels somewhere else and of another size, which still touch their objects; those that come out so."""
    shift = generator.uniform(-_MOST_MOVED, _MOST_MOVED, (len(right.boxes), 2))
    factor = np.exp(generator.uniform(-_MOST_STRETCHED, _MOST_STRETCHED, (len(right.boxes), 2)))
    size = right.boxes[:, 2:] * factor
    centre = right.boxes[:, :2] + right.boxes[:, 2:] * (0.5 + shift)
    boxes = np.concatenate([centre - size / 2, size], axis=1)
    overlap = _iou(boxes, right.boxes)
    return replace(right, boxes=boxes).where((overlap > _OVERLAP_OF_MOVED[0]) & (overlap < _OVERLAP_OF_MOVED[1]))


def renamed(right: Labels, rivals: Ints, num_classes: int, generator: np.random.Generator) -> Labels:
    """Labels of another class.

    Args:
        right: the labels.
        rivals: ``[N]``, the other class that the detections take each for, which half of the labels get; -1: none.
        num_classes: at least 2.
        generator: of the other half's classes.
    """
    any_other = (right.classes + generator.integers(1, num_classes, len(right.classes))) % num_classes
    mistaken = (rivals >= 0) & (generator.random(len(rivals)) < 0.5)
    return replace(right, classes=np.where(mistaken, rivals, any_other))


def misplaced(right: Labels, boxes: EvaluatedBoxes, generator: np.random.Generator) -> Labels:
    """Labels of other images, where there is no object of that size; those for which there is such a place."""
    images = generator.permutation(right.images)
    made = Labels(images, right.classes, right.boxes, np.full(len(images), -1))
    high = np.zeros((len(boxes.image_ids), 2))  # how far an image reaches at least
    np.maximum.at(high, boxes.found_images, boxes.found_boxes[:, :2] + boxes.found_boxes[:, 2:])
    np.maximum.at(high, boxes.truth_images, boxes.truth_boxes[:, :2] + boxes.truth_boxes[:, 2:])
    within = (made.boxes[:, :2] + made.boxes[:, 2:] <= high[images]).all(axis=1)
    return made.where(within & (crowding(made, boxes) < SAME_OBJECT))


def _iou(one: Floats, other: Floats) -> Floats:
    sides = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    inner = sides.clip(min=0).prod(axis=1)
    return inner / (one[:, 2:].prod(axis=1) + other[:, 2:].prod(axis=1) - inner)
