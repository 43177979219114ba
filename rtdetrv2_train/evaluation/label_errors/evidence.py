"""What the detections of a set say about a label, as a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.analysis.matching import Pairs, overlapping_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_OVERLAP = 0.1
"""IoU below which a detection has nothing to do with a label."""
SAME_OBJECT = 0.5
"""IoU from which two boxes mean the same object."""
_LOWEST, _HIGHEST = 0.01, 0.99  # scores: what is beyond differs in noise only


@dataclass(frozen=True)
class Labels:
    """N labels, as they are or as they might be if they were wrong.

    Attributes:
        images: int64 ``[N]``, indices of images.
        classes: int64 ``[N]``.
        boxes: float64 ``[N, 4]``, xywh in pixels.
        instead_of: int64 ``[N]``, the label of the set in whose place each stands; -1 where it stands in none's.
    """

    images: Ints
    classes: Ints
    boxes: Floats
    instead_of: Ints

    @classmethod
    def of(cls, boxes: EvaluatedBoxes, rows: Ints) -> Labels:
        """Some of a set's own labels."""
        return cls(boxes.truth_images[rows], boxes.truth_classes[rows], boxes.truth_boxes[rows], rows)

    def where(self, chosen: NDArray[np.bool_] | Ints) -> Labels:
        """The chosen ones."""
        return Labels(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class Rivals:
    """For each of D detections the label that it overlaps most, and by how much; and its overlap with the second.

    A detection speaks of the label that it overlaps most, so that crowded objects do not speak for each other.
    """

    label: Ints
    first: Floats
    second: Floats

    @classmethod
    def of(cls, num_found: int, pairs: Pairs) -> Rivals:
        """Args: ``num_found``: D; ``pairs``: all overlaps with labels that are no crowd regions."""
        label, first, second = np.full(num_found, -1), np.zeros(num_found), np.zeros(num_found)
        order = np.lexsort((-pairs.iou, pairs.found))
        found, starts = np.unique(pairs.found[order], return_index=True)
        label[found], first[found] = pairs.truth[order[starts]], pairs.iou[order[starts]]
        has_second = np.append(starts[1:], len(order)) - starts > 1
        second[found[has_second]] = pairs.iou[order[starts[has_second] + 1]]
        return cls(label, first, second)

    def overlap(self, found: Ints, without: Ints) -> Floats:
        """The most overlap of detections with labels other than one for each of them."""
        return np.where(self.label[found] == without, self.second[found], self.first[found])


@dataclass(frozen=True)
class Evidence:
    """What detections say about N labels.

    Attributes:
        agreeing: ``[N]``, score times IoU of the detection of the label's class for which that is largest.
        contrary: ``[N]``, the same among detections of other classes.
        near: ``[N]``, the best score of a detection of the label's class, however well it fits.
        fit: ``[N]``, its IoU with the label.
        nearest: int64 ``[N]``, that detection; -1 for none.
        other: int64 ``[N]``, the detection of ``contrary``; -1 for none.
        crowding: ``[N]``, the largest IoU with a label of something else, whose detections may hide its own.
    """

    agreeing: Floats
    contrary: Floats
    near: Floats
    fit: Floats
    nearest: Ints
    other: Ints
    crowding: Floats

    @classmethod
    def about(cls, labels: Labels, boxes: EvaluatedBoxes, rivals: Rivals) -> Evidence:
        """Collect what the detections that overlap no other label more say about each label."""
        pairs = overlapping_pairs(
            replace(
                boxes,
                truth_images=labels.images,
                truth_classes=labels.classes,
                truth_boxes=labels.boxes,
                truth_crowd=np.zeros(len(labels.images), dtype=bool),
            ),
            LEAST_OVERLAP,
        )
        pairs = pairs.where(pairs.iou >= rivals.overlap(pairs.found, labels.instead_of[pairs.truth]))
        same = boxes.found_classes[pairs.found] == labels.classes[pairs.truth]
        own, others = pairs.where(same), pairs.where(~same)
        scores, num = boxes.found_scores, len(labels.images)
        agreeing, _ = _best(own, scores[own.found] * own.iou, num)
        contrary, other = _best(others, scores[others.found] * others.iou, num)
        near, place = _best(own, scores[own.found], num)
        fit = np.where(place >= 0, np.append(own.iou, 0)[place], 0)
        nearest, rival = np.append(own.found, -1)[place], np.append(others.found, -1)[other]
        return cls(agreeing, contrary, near, fit, nearest, rival, crowding(labels, boxes))

    def features(self, usual: Floats) -> Floats:
        """The numbers that tell right labels from wrong ones, ``[N, 6]``.

        Args:
            usual: ``[N]``, log-odds of the scores that are usual for each label's class.
        """
        return np.stack(
            [
                log_odds(self.agreeing) - usual,
                log_odds(self.contrary),
                log_odds(self.near) - usual,
                self.near * self.fit,
                self.near * (1 - self.fit),
                self.crowding,
            ],
            axis=1,
        )


def crowding(labels: Labels, boxes: EvaluatedBoxes) -> Floats:
    """The largest IoU of each label with a label of the set in whose place it does not stand, ``[N]``."""
    pairs = overlapping_pairs(
        replace(
            boxes,
            found_images=labels.images,
            found_classes=labels.classes,
            found_boxes=labels.boxes,
            found_scores=np.ones(len(labels.images)),
        ),
        0.0,
    )
    pairs = pairs.where((pairs.truth != labels.instead_of[pairs.found]) & ~boxes.truth_crowd[pairs.truth])
    most = np.zeros(len(labels.images))
    np.maximum.at(most, pairs.found, pairs.iou)
    return most


def log_odds(scores: Floats) -> Floats:
    """Of scores in [0, 1]; those that are almost 0 or 1 count as somewhat less extreme."""
    clipped = scores.clip(_LOWEST, _HIGHEST)
    return np.log(clipped / (1 - clipped))


def _best(pairs: Pairs, values: Floats, num_labels: int) -> tuple[Floats, Ints]:
    """The largest value for each label, 0 for none, and the place of its pair, -1 for none."""
    order = np.argsort(values, kind="stable")
    largest, place = np.zeros(num_labels), np.full(num_labels, -1)
    largest[pairs.truth[order]], place[pairs.truth[order]] = values[order], order
    return largest, place
