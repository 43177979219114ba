from __future__ import annotations

import io

import pytest
from rich.console import Console

from rtdetrv2_train.evaluation.analysis.advice import Advice
from rtdetrv2_train.evaluation.metrics import ClassMetrics, CocoMetrics
from rtdetrv2_train.evaluation.tables import print_advice, print_metrics


def printed(per_class: list[ClassMetrics], saved_at: str | None = None) -> str:
    metrics = CocoMetrics(0.481, 0.652, 0.523, -1.0, 0.5, 0.6, 0.31, 0.42, 0.633, -1.0, 0.7, 0.8, per_class)
    console = Console(file=io.StringIO(), width=100)
    print_metrics(metrics, console, saved_at)
    return console.file.getvalue()


def test_the_twelve_numbers_are_percent_and_a_dash_where_nothing_is_measured() -> None:
    text = printed([])
    for number in ("48.1", "65.2", "52.3", "50.0", "60.0", "31.0", "42.0", "63.3", "70.0", "80.0"):
        assert number in text
    row = next(line for line in text.splitlines() if line.strip("│ ").startswith("small"))
    assert row.count("–") == 2  # noqa: RUF001
    assert "-100" not in text


def test_classes_are_sorted_best_first_and_unmeasured_ones_come_last() -> None:
    classes = [ClassMetrics("poor", 0.1, 0.2, 0.3, 5), ClassMetrics("absent", -1, -1, -1, 0)]
    classes.append(ClassMetrics("[red]good", 0.9, 0.95, 0.97, 12))
    text = printed(classes)
    assert text.index("[red]good") < text.index("poor") < text.index("absent")
    assert "12" in text
    assert "per_class" not in text


@pytest.mark.parametrize("name", [r"\[/b]", "[/b]", "$x_{$", "A$ 5% B$", ":car:", "a\\"])
def test_the_name_of_a_class_is_never_markup(name: str) -> None:
    assert name in printed([ClassMetrics(name, 0.1, 0.2, 0.3, 5)])
    console = Console(file=io.StringIO(), width=100)
    print_advice([Advice(name, 0.1, "missed 3x", "more")], console)
    assert name in console.file.getvalue()


def test_many_classes_show_the_best_and_worst_ten_and_say_where_all_are() -> None:
    classes = [ClassMetrics(f"class{k:02}", k / 100, 0.5, 0.5, 1) for k in range(1, 36)]
    classes.append(ClassMetrics("absent", -1, -1, -1, 0))
    text = printed(classes, "runs/a/metrics.json")
    shown = {f"class{k:02}" for k in range(1, 36) if f"class{k:02}" in text}
    assert shown == {f"class{k:02}" for k in (*range(1, 11), *range(26, 36))}
    assert "absent" not in text
    assert "20 of 36 classes (1 without a box in the ground truth); all are in runs/a/metrics.json" in text
