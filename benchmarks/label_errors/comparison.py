"""Label errors that were planted in a set: how many do the first suggestions find, beside those of cleanlab.

    python -m benchmarks.label_errors bccd=FOLDER OUTPUT               # 10 minutes on one core
    python -m benchmarks.label_errors bccd=FOLDER OUTPUT --folds 2     # each half by a run on the other half
    python -m benchmarks.label_errors bccd=FOLDER OUTPUT --epochs 12 model=r18vd

5 % of the training boxes are dropped, moved or renamed. A short run of nano is trained on that, and looks at the images
that it was trained on. What stays in the output folder is used again. Errors that the set had before count as false
alarms, so that precision is a lower bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from benchmarks.accuracy.sets import DataSet
from benchmarks.label_errors.by_cleanlab import by_cleanlab
from benchmarks.label_errors.counting import scores
from benchmarks.label_errors.planting import KINDS, Planted, plant
from benchmarks.label_errors.runs import found_by_run, halves, joined
from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.label_errors.suggestions import find_label_errors
from rtdetrv2_train.suggestion import Suggestion

NUMBERS = (25, 50, 100)
_TRUSTED_SCORE = 0.5  # for cleanlab, which trusts detections from 0.95 only


def main() -> None:
    """Plant errors, train, and print what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="NAME=FOLDER, in COCO's format")
    parser.add_argument("output", type=Path)
    parser.add_argument("--folds", type=int, choices=(1, 2), default=1)
    parser.add_argument("--epochs", type=int, default=20, help="of all images; twice as many of each half")
    parser.add_argument("--share", type=float, default=0.05, help="of boxes that become wrong")
    parser.add_argument("--seed", type=int, default=0)
    arguments, overrides = parser.parse_known_args()
    output = arguments.output.resolve() / f"seed_{arguments.seed}"
    data = DataSet.find(arguments.set)
    labels = output / "labels.json"
    errors = plant(data.train.annotations, labels, arguments.share, arguments.seed)
    val = (data.val.annotations, data.val.images)
    if arguments.folds == 1:
        run = output / "run"
        boxes = found_by_run(labels, labels, data.train.images, val, run, arguments.epochs, overrides)
    else:
        one, other = halves(labels, output, arguments.seed)
        pairs = ((one, other, output / "run_0"), (other, one, output / "run_1"))
        boxes = joined(
            [
                found_by_run(train, inspected, data.train.images, val, run, 2 * arguments.epochs, overrides)
                for train, inspected, run in pairs
            ]
        )
    planted = ", ".join(f"{sum(error.kind == kind for error in errors)} {kind}" for kind in KINDS)
    print(f"{data.name}: {len(boxes.truth_boxes)} labels; planted: {planted}")
    print_table("this", find_label_errors(boxes, np.arange(len(boxes.truth_boxes))), errors)
    try:
        print_table("cleanlab, lowest score first", cleanlab_suggestions(boxes, None), errors)
        print_table("cleanlab, kinds in turn", cleanlab_suggestions(boxes, _TRUSTED_SCORE), errors)
    except ImportError:
        print("cleanlab is not installed: pip install cleanlab")


def cleanlab_suggestions(boxes: EvaluatedBoxes, trusted: float | None) -> list[Suggestion]:
    """Cleanlab's suggestions in the order of its scores, or with a trusted score given, its three kinds in turn."""
    ranked = by_cleanlab(boxes, trusted)
    if trusted is not None:
        groups = [[entry for entry in ranked if entry[0] == kind] for kind in ("overlooked", "badloc", "swap")]
        ranked = [entry for entry in chain.from_iterable(zip_longest(*groups)) if entry is not None]
    once = dict.fromkeys((label, found) for _, label, found in ranked)
    return [_as_suggestion(boxes, label, found) for label, found in once]


def _as_suggestion(boxes: EvaluatedBoxes, label: int, found: int) -> Suggestion:
    if label >= 0:
        image = int(boxes.image_ids[boxes.truth_images[label]])
        return Suggestion("badly placed", 0.0, image, label, label_box=tuple(boxes.truth_boxes[label].tolist()))
    image = int(boxes.image_ids[boxes.found_images[found]])
    return Suggestion("missing box", 0.0, image, found_box=tuple(boxes.found_boxes[found].tolist()))


def print_table(name: str, suggestions: Sequence[Suggestion], errors: Sequence[Planted]) -> None:
    """Print precision and recall of the first suggestions."""
    print(f"{name}: {len(suggestions)} suggestions")
    for score in scores(suggestions, errors, NUMBERS):
        kinds = ", ".join(f"{count} {kind}" for kind, count in score.found.items())
        print(f"  first {score.number:3}: precision {score.precision:.2f}, recall {score.recall:.2f} ({kinds})")
