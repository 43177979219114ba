"""How many of the planted errors suggestions find, and how many suggestions are about one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.label_errors.planting import KINDS, Planted, iou
from rtdetrv2_train.suggestion import Suggestion

_SAME_OBJECT = 0.5
_SAME_BOX = 0.2  # pixels


@dataclass(frozen=True)
class Score:
    """What the first N suggestions are worth.

    Attributes:
        number: N.
        precision: share of them that is about a planted error.
        recall: share of the planted errors that they are about.
        found: errors that they are about, of each kind.
    """

    number: int
    precision: float
    recall: float
    found: dict[str, int]


def scores(suggestions: Sequence[Suggestion], errors: Sequence[Planted], numbers: Sequence[int]) -> list[Score]:
    """Precision and recall of the first suggestions, for several numbers of them."""
    about = errors_of(suggestions, errors)
    measured = []
    for number in numbers:
        first = about[:number]
        different = {error for error in first if error >= 0}
        kinds = Counter(errors[error].kind for error in different)
        precision = sum(error >= 0 for error in first) / max(len(first), 1)
        recall = len(different) / max(len(errors), 1)
        measured.append(Score(number, precision, recall, {kind: kinds[kind] for kind in KINDS}))
    return measured


def errors_of(suggestions: Sequence[Suggestion], errors: Sequence[Planted]) -> list[int]:
    """For each suggestion the planted error that it is about; -1 for none.

    A suggestion about a label finds the error of that label, whatever the suggestion says of it. A missing box finds a
    dropped or a moved label whose true box it overlaps by an IoU of 0.5.
    """
    of_image: dict[int, list[int]] = {}
    for number, error in enumerate(errors):
        of_image.setdefault(error.image_id, []).append(number)
    return [
        next((number for number in of_image.get(it.image_id, ()) if _is_about(it, errors[number])), -1)
        for it in suggestions
    ]


def _is_about(suggestion: Suggestion, error: Planted) -> bool:
    if suggestion.label_box is not None:
        return error.box is not None and np.abs(np.subtract(suggestion.label_box, error.box)).max() < _SAME_BOX
    assert suggestion.found_box is not None
    return error.kind != "renamed" and iou(suggestion.found_box, error.true_box) >= _SAME_OBJECT
