"""What is advised follows from what goes wrong."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from rtdetrv2_train.evaluation.analysis.advice import FEW_BOXES, worst_classes
from rtdetrv2_train.evaluation.analysis.analysis import Analysis, analyse
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.tables import print_advice
from tests.evaluation.coco_objects import as_ground_truth
from tests.evaluation.test_coco import annotation, detections, ground_truth

BOX = [10.0, 10.0, 40.0, 40.0]
CORNERS = [10.0, 10.0, 50.0, 50.0]
NOTHING = [300.0, 300.0, 301.0, 301.0]


def wrong_in_one_way(label: int, corners: list[float], score: float = 0.9, boxes: int = 2 * FEW_BOXES) -> Analysis:
    """Class 0 with one box an image, half of them found as they should be and half as given; class 1 is perfect."""
    images = list(range(boxes))
    truth = ground_truth(
        images,
        [1, 2],
        [annotation(i + 1, i, 1, BOX) for i in images]
        + [annotation(1000 + i, i, 2, [200.0, 200.0, 40.0, 40.0]) for i in images],
    )
    labels = np.array([[0 if i % 2 else label, 1] for i in images])
    found: list[Any] = [[CORNERS if i % 2 else corners, [200, 200, 240, 240]] for i in images]
    scores = np.array([[0.8 if i % 2 else score, 0.9] for i in images])
    evaluator = CocoEvaluator(as_ground_truth(truth), [1, 2])
    evaluator.update(detections(labels, found, scores), torch.tensor(images))
    return analyse(evaluator)


@pytest.mark.parametrize(
    ("label", "corners", "mistake", "remedy"),
    [
        (1, CORNERS, "classification 20x", "confusion matrix"),
        (0, [10.0, 10.0, 50.0, 27.0], "localisation 20x", "how tightly it is annotated"),
        (0, NOTHING, "background 20x", "objects that the annotation left out"),
    ],
)
def test_the_remedy_is_that_of_the_commonest_mistake(
    label: int, corners: list[float], mistake: str, remedy: str
) -> None:
    advice = worst_classes(wrong_in_one_way(label, corners))
    assert [item.name for item in advice] == ["class 1", "class 2"]
    assert advice[0].mistake == mistake
    assert remedy in advice[0].remedy


def test_boxes_that_nothing_sure_was_found_for_are_missed() -> None:
    advice = worst_classes(wrong_in_one_way(0, NOTHING, score=0.01), number=1)
    assert advice[0].mistake == "missed 20x"
    assert "add examples" in advice[0].remedy


def test_too_few_boxes_are_said_to_be_too_few() -> None:
    advice = worst_classes(wrong_in_one_way(1, CORNERS, boxes=FEW_BOXES - 2))
    assert f"only {FEW_BOXES - 2} boxes" in advice[0].remedy


def history(steps: int, *AP: float) -> list[dict[str, float]]:
    return [{"epoch": e, "step": steps * (e + 1), "val/AP": ap} for e, ap in enumerate(AP)]


@pytest.mark.parametrize(
    ("epochs", "remedy"),
    [
        (history(8, 0.0), "after no more than 8 optimizer steps: train longer"),
        (history(2, 0.0, 0.01, 0.02, 0.02), "after no more than 8 optimizer steps: train longer"),
        (history(1000, 0.1, 0.2, 0.3, 0.4, 0.5), "AP still rose at the end of training: train longer"),
        (history(1000, 0.1, 0.3, 0.4, 0.4, 0.405), "confusion matrix"),
        (history(20, 0.7, 0.8, 0.8, 0.8, 0.8), "confusion matrix"),
        ([{"epoch": 0, "step": 9, "val_part/AP": 0.1}], "after no more than 9 optimizer steps: train longer"),
    ],
)
def test_too_short_a_training_comes_before_all_else(epochs: list[dict[str, float]], remedy: str) -> None:
    for boxes in (2 * FEW_BOXES, FEW_BOXES - 2):
        analysis = wrong_in_one_way(1, CORNERS, boxes=boxes)
        expected = remedy if "longer" in remedy or boxes > FEW_BOXES else "annotate more"
        assert all(expected in item.remedy for item in worst_classes(analysis, 1, epochs))


def test_the_table_names_class_mistake_and_remedy() -> None:
    console = Console(file=io.StringIO(), width=200)
    advice = worst_classes(wrong_in_one_way(1, CORNERS))
    print_advice(advice, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "class 1" in text
    assert advice[0].mistake in text
    assert advice[0].remedy in text
    print_advice([], console)
    assert console.file.getvalue() == text  # type: ignore[attr-defined]
