"""Writing the report: one HTML file that contains everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from rtdetrv2_train.evaluation.analysis.advice import worst_classes
from rtdetrv2_train.evaluation.analysis.analysis import Analysis
from rtdetrv2_train.evaluation.tables import percent
from rtdetrv2_train.report.pictures import ReadImage, chosen_images, chosen_mistakes
from rtdetrv2_train.viz.charts import report_charts
from rtdetrv2_train.viz.colours import class_colour

_MOST_IN_MATRIX = 24
_CONFUSIONS_LISTED = 20
_COLUMNS = {
    "name": "class",
    "num_boxes": "boxes",
    "AP": "AP",
    "AP50": "AP50",
    "AR100": "AR100",
    "AP_small": "AP small",
    "AP_medium": "AP medium",
    "AP_large": "AP large",
    "best_threshold": "best threshold",
    "F1": "F1 there",
    "precision": "precision",
    "recall": "recall",
}
_HEADLINES = ("AP", "AP50", "AP75", "AR100")
_BY_SIZE = ("AP_small", "AP_medium", "AP_large")


@dataclass(frozen=True)
class Subject:
    """What a report is about, besides the detections.

    Attributes:
        title: of the page.
        facts: what was trained on what, and how fast and large the model is: name and value.
        read_image: reads an image of the data set by its id.
        image_names: file name of each image id.
        history: the metrics of each epoch; empty where there was no training.
    """

    title: str
    facts: Mapping[str, str]
    read_image: ReadImage
    image_names: dict[int, str]
    history: Sequence[Mapping[str, float]] = ()


def write_report(path: Path, analysis: Analysis, subject: Subject) -> Path:
    """Write the report. It needs no other file and no network.

    Args:
        path: the file to write.
        analysis: of the detections.
        subject: what the page is about.

    Returns:
        ``path``.
    """
    environment = Environment(loader=PackageLoader("rtdetrv2_train.report"), autoescape=True, trim_blocks=True)
    environment.filters["percent"] = percent
    environment.filters["embedded"] = _embedded
    names = analysis.boxes.class_names
    page = environment.get_template("report.html").render(
        subject=subject,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        analysis=analysis,
        headlines={name: getattr(analysis.metrics, name) for name in (*_HEADLINES, *_BY_SIZE)},
        columns=_COLUMNS,
        rows=analysis.class_rows(),
        advice=worst_classes(analysis, history=subject.history),
        charts={title: Markup(svg) for title, svg in report_charts(analysis, subject.history).items()},
        matrix=_matrix(analysis),
        confusions=_confusions(analysis),
        data={
            "classes": [{"name": name, "colour": f"rgb{class_colour(k)}"} for k, name in enumerate(names)],
            "threshold": analysis.threshold,
            "overall": {
                key: np.round(getattr(analysis.overall, key), 4).tolist() for key in ("precision", "recall", "f1")
            },
            "images": _as_lists(chosen_images(analysis, subject.read_image, subject.image_names)),
            "mistakes": _as_lists(chosen_mistakes(analysis, subject.read_image)),
        },
    )
    path.write_text(page, encoding="utf-8")
    return path


def _matrix(analysis: Analysis) -> dict[str, Any]:
    """The confusion matrix, or the part of it with the classes that are confused most, row shares beside counts."""
    matrix, names = analysis.confusion, [*analysis.boxes.class_names, "background"]
    shown = np.arange(len(names))
    if len(names) > _MOST_IN_MATRIX + 1:
        wrong = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        worst = np.argsort(-wrong[:-1], kind="stable")[:_MOST_IN_MATRIX]
        shown = np.append(np.sort(worst), len(names) - 1)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return {
        "names": [names[k] for k in shown],
        "counts": matrix[np.ix_(shown, shown)].tolist(),
        "shares": np.round(shares[np.ix_(shown, shown)], 3).tolist(),
        "partly": len(shown) < len(names),
    }


def _confusions(analysis: Analysis) -> list[tuple[str, str, int]]:
    """The pairs of classes that are confused most: what it is, what it was taken for, how often."""
    matrix, names = analysis.confusion[:-1, :-1].copy(), analysis.boxes.class_names
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:_CONFUSIONS_LISTED]
    pairs = ((*divmod(int(place), len(names)), int(matrix.flat[place])) for place in order)
    return [(names[row], names[column], count) for row, column, count in pairs if count]


def _as_lists(groups: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(picture) for picture in pictures] for name, pictures in groups.items() if pictures}


def _embedded(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
