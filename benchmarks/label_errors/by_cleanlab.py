"""The suggestions of cleanlab's ObjectLab (Tkachenko et al., arXiv 2309.00832) on the same detections."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes

Ranked = list[tuple[str, int, int]]
"""Kind, label (or -1), detection (or -1); the most suspicious first."""


def by_cleanlab(boxes: EvaluatedBoxes, high_probability: float | None = None) -> Ranked:
    """Labels and detections by the lowest of cleanlab's three scores of each box.

    Args:
        boxes: labels and detections.
        high_probability: score from which cleanlab trusts a detection; None for its own 0.95, which detectors trained
            with a loss that depends on IoU hardly reach.

    Raises:
        ImportError: if cleanlab is not installed.
    """
    from cleanlab.object_detection import rank

    order = np.lexsort((boxes.found_classes, boxes.found_images))  # as cleanlab goes through predictions
    found_of = _by_image(boxes.found_images[order], len(boxes.image_ids))
    truth_of = _by_image(boxes.truth_images, len(boxes.image_ids))
    found, truth = _corners(boxes.found_boxes), _corners(boxes.truth_boxes)
    labels: list[dict[str, Any]] = []
    predictions = []
    for of_image, truths in zip(found_of, truth_of, strict=True):
        labels.append({"bboxes": truth[truths], "labels": boxes.truth_classes[truths]})
        rows = order[of_image]
        scored = np.concatenate([found[rows], boxes.found_scores[rows, None]], axis=1)
        by_class = [scored[boxes.found_classes[rows] == k] for k in range(len(boxes.class_names))]
        predictions.append(np.array([*by_class, None], dtype=object)[:-1])
    inputs = rank._get_valid_inputs_for_compute_scores(rank.ALPHA, labels, predictions)
    limit = {"high_probability_threshold": high_probability}
    scores = {
        "overlooked": rank.compute_overlooked_box_scores(auxiliary_inputs=inputs, **limit),
        "badloc": rank.compute_badloc_box_scores(auxiliary_inputs=inputs),
        "swap": rank.compute_swap_box_scores(auxiliary_inputs=inputs, **limit),
    }
    ranked = []
    for kind, of_images in scores.items():
        for image, values in enumerate(of_images):
            for place in np.flatnonzero(~np.isnan(values)):
                if kind == "overlooked":
                    ranked.append((values[place], kind, -1, int(order[found_of[image][place]])))
                else:
                    ranked.append((values[place], kind, int(truth_of[image][place]), -1))
    return [entry[1:] for entry in sorted(ranked)]


def _by_image(images: np.ndarray, number: int) -> list[np.ndarray]:
    order = np.argsort(images, kind="stable")
    return np.split(order, np.searchsorted(images[order], np.arange(1, number)))


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
