"""Metrics as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtdetrv2_train.evaluation.analysis.advice import Advice
from rtdetrv2_train.evaluation.backends import BENCHMARK_LIMIT
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE, ClassMetrics, CocoMetrics

MOST_CLASSES_SHOWN = 30
SHOWN_AT_EACH_END = 10

# Label, average precision, average recall: one line of the summary each.
_SUMMARY_ROWS = (
    ("IoU 0.50:0.95", "AP", "AR100"),
    ("IoU 0.50", "AP50", None),
    ("IoU 0.75", "AP75", None),
    ("small, below 32² px", "AP_small", "AR_small"),
    ("medium", "AP_medium", "AR_medium"),
    ("large, above 96² px", "AP_large", "AR_large"),
    ("1 detection per class and image", None, "AR1"),
    ("10 detections per class and image", None, "AR10"),
)


def print_metrics(metrics: CocoMetrics, console: Console | None = None, saved_at: Path | str | None = None) -> None:
    """Print the twelve metrics and a table of the classes, in percent; a dash where there is nothing to measure.

    Args:
        metrics: what to print.
        console: where to; by default standard output.
        saved_at: file that holds all the numbers, named where the table shows only some of the classes.
    """
    console = console or Console()
    console.print(summary_table(metrics))
    console.print(class_table(metrics))
    for note in (_left_out(metrics, saved_at), *notes(metrics)):
        if note:
            console.print(Text(note), soft_wrap=True)


def print_advice(advice: Sequence[Advice], console: Console | None = None) -> None:
    """Print the classes with the lowest AP and what to try for them; nothing if there are none."""
    if not advice:
        return
    table = Table(title="Worst classes", title_justify="left")
    table.add_column("class")
    table.add_column("AP (%)", justify="right")
    table.add_column("commonest mistake")
    table.add_column("what to try")
    for item in advice:
        table.add_row(Text(item.name), percent(item.AP), item.mistake or "none", item.remedy)
    (console or Console()).print(table)


def summary_table(metrics: CocoMetrics) -> Table:
    """The twelve numbers, precision beside recall."""
    table = Table(title="COCO metrics (%)", title_justify="left")
    table.add_column("")
    table.add_column("AP", justify="right")
    table.add_column("AR", justify="right")
    for label, precision, recall in _SUMMARY_ROWS:
        numbers = [percent(getattr(metrics, name)) if name else "" for name in (precision, recall)]
        table.add_row(label, *numbers, style="bold" if precision == "AP" else "")
    if metrics.max_detections:
        numbers = [percent(metrics.AP_max_detections), percent(metrics.AR_max_detections)]
        table.add_row(f"{metrics.max_detections} detections per class and image", *numbers)
    return table


def class_table(metrics: CocoMetrics) -> Table:
    """The classes, best first; the best and the worst ten where there are more than thirty."""
    measured, unmeasured = _by_precision(metrics)
    table = Table(title="Classes, best first (%)", title_justify="left")
    table.add_column("class")
    for heading in ("AP", "AP50", "AR100", "boxes"):
        table.add_column(heading, justify="right")
    if len(metrics.per_class) <= MOST_CLASSES_SHOWN:
        _add_classes(table, [*measured, *unmeasured])
    elif len(measured) <= 2 * SHOWN_AT_EACH_END:
        _add_classes(table, measured)
    else:
        _add_classes(table, measured[:SHOWN_AT_EACH_END])
        table.add_section()
        _add_classes(table, measured[-SHOWN_AT_EACH_END:])
    return table


def notes(metrics: CocoMetrics) -> list[str]:
    """What has to be known to read the numbers."""
    lines = []
    if metrics.AP == NOTHING_TO_MEASURE:
        lines.append("there is no AP, as the ground truth has no box of these classes")
    if metrics.is_partial:
        lines.append(f"measured on {metrics.images} of {metrics.all_images} images (trainer.limit_val_batches)")
    if metrics.most_boxes > (metrics.max_detections or BENCHMARK_LIMIT):
        lines.append(
            f"an image has {metrics.most_boxes} boxes of one class, and COCO's AP counts the best {BENCHMARK_LIMIT} "
            f"detections of a class: evaluation.max_detections={metrics.most_boxes} gives it with so many as well"
        )
    return lines


def _by_precision(metrics: CocoMetrics) -> tuple[list[ClassMetrics], list[ClassMetrics]]:
    ordered = sorted(metrics.per_class, key=lambda of_class: (-of_class.AP, of_class.name))
    measured = [of_class for of_class in ordered if of_class.AP != NOTHING_TO_MEASURE]
    return measured, [of_class for of_class in ordered if of_class.AP == NOTHING_TO_MEASURE]


def _add_classes(table: Table, classes: Iterable[ClassMetrics]) -> None:
    for of_class in classes:
        numbers = (percent(number) for number in (of_class.AP, of_class.AP50, of_class.AR100))
        table.add_row(Text(of_class.name), *numbers, str(of_class.num_boxes))


def _left_out(metrics: CocoMetrics, saved_at: Path | str | None) -> str:
    total = len(metrics.per_class)
    if total <= MOST_CLASSES_SHOWN:
        return ""
    measured, unmeasured = _by_precision(metrics)
    shown = min(len(measured), 2 * SHOWN_AT_EACH_END)
    without = f" ({len(unmeasured)} without a box in the ground truth)" if unmeasured else ""
    return f"{shown} of {total} classes{without}; all are in {saved_at or 'the saved metrics, under per_class'}"


def percent(fraction: float | None) -> str:
    """A metric in percent; a dash where there was nothing to measure."""
    return "–" if fraction in (None, NOTHING_TO_MEASURE) else f"{100 * fraction:.1f}"  # noqa: RUF001
