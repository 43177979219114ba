"""What to try for the classes with the lowest AP, judged by their most frequent mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rtdetrv2_train.evaluation.analysis.analysis import Analysis
from rtdetrv2_train.evaluation.analysis.mistakes import KINDS, MISSED, RIGHT
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE

FEW_STEPS = 300
"""Optimizer steps below which a model that finds little was trained for too short a time."""
_LITTLE = 0.5
_RISING = 0.01
FEW_BOXES = 20
"""Boxes below which the AP of a class says little."""
_REMEDIES = {
    "classification": "often taken for another class: look at the confusion matrix, check their labels, add examples",
    "localisation": "found, but with boxes that fit badly: check how tightly it is annotated, train at a larger size",
    "both": "something near it is found as another class: check the labels of the two, add examples",
    "duplicate": "found more than once: train longer, or raise the score threshold",
    "background": "seen where nothing is annotated: look for objects that the annotation left out, add empty images",
    MISSED: "missed: add examples, train longer, or at a larger model.image_size if the boxes are small",
}


@dataclass(frozen=True)
class Advice:
    """A class and what to try for it.

    Attributes:
        name: of the class.
        AP: its average precision.
        mistake: its most frequent mistake, and how often it was made; empty if there is none.
        remedy: what to try.
    """

    name: str
    AP: float
    mistake: str
    remedy: str


def worst_classes(analysis: Analysis, number: int = 3, history: Sequence[Mapping[str, float]] = ()) -> list[Advice]:
    """The classes with the lowest AP, lowest first, each with what to try.

    Args:
        analysis: of the detections.
        number: of classes.
        history: the metrics of each epoch of the training, where they are known.
    """
    per_class = analysis.metrics.per_class
    measured = [k for k, of_class in enumerate(per_class) if of_class.AP != NOTHING_TO_MEASURE]
    too_short = _too_short(history)
    return [_advice(analysis, k, too_short) for k in sorted(measured, key=lambda k: per_class[k].AP)[:number]]


def _too_short(history: Sequence[Mapping[str, float]]) -> str:
    """Why training should have been longer, which comes before all else; empty if it was long enough."""
    AP = [epoch.get("val/AP", 0.0) for epoch in history]
    last = len(AP) // 5  # epochs in which AP should hardly rise any more
    if last and max(AP[-last:]) > max(AP[:-last]) + _RISING:
        return "AP still rose at the end of training: train longer (trainer.max_epochs)"
    steps = history[-1].get("step", FEW_STEPS) if history else FEW_STEPS
    if steps < FEW_STEPS and max(AP) < _LITTLE:
        return f"after no more than {steps:.0f} optimizer steps: train longer (trainer.max_epochs)"
    return ""


def _advice(analysis: Analysis, k: int, too_short: str) -> Advice:
    boxes, mistakes = analysis.boxes, analysis.mistakes
    sure = boxes.found_scores >= analysis.threshold
    # A mistake belongs to the class that should have been found; one on background to the class that was seen.
    meant = np.where(mistakes.meant >= 0, boxes.truth_classes[mistakes.meant], boxes.found_classes)
    counts = {
        KINDS[number]: int(((mistakes.kind == number) & sure & (meant == k)).sum())
        for number in range(RIGHT + 1, len(KINDS))
    }
    found = np.zeros(len(boxes.truth_images), dtype=bool)
    found[mistakes.meant[sure & (mistakes.kind >= RIGHT) & (mistakes.meant >= 0)]] = True
    counts[MISSED] = int((~found & ~boxes.truth_crowd & (boxes.truth_classes == k)).sum())
    of_class = analysis.metrics.per_class[k]
    commonest = max(counts, key=lambda name: counts[name])
    if too_short:
        remedy = too_short
    elif of_class.num_boxes < FEW_BOXES:
        remedy = f"only {of_class.num_boxes} boxes to measure it on, so that this says little: annotate more"
    elif not counts[commonest]:
        remedy = "boxes that fit even better: train longer"
    else:
        remedy = _REMEDIES[commonest]
    mistake = f"{commonest} {counts[commonest]}x" if counts[commonest] else ""
    return Advice(of_class.name, of_class.AP, mistake, remedy)
