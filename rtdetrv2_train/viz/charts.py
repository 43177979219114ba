"""Charts of a report, as SVG or as pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from rtdetrv2_train.evaluation.analysis.analysis import Analysis
from rtdetrv2_train.evaluation.analysis.curves import RECALLS, THRESHOLDS
from rtdetrv2_train.viz.colours import class_colour
from rtdetrv2_train.viz.fonts import font_file
from rtdetrv2_train.viz.svg import ACCENT, INK, SECOND, STYLE, as_svg, new_figure

_MOST_IN_LEGEND = 8
_LOSSES = {
    "vfl": "classes (varifocal)",
    "mal": "classes (MAL)",
    "bbox": "boxes (L1)",
    "giou": "boxes (GIoU)",
}


def report_charts(analysis: Analysis, history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The charts of a report as SVG, by title, in the order to show them.

    Args:
        analysis: of the detections.
        history: the metrics of each epoch; empty where there was no training.
    """
    charts: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        if len(history) > 1:
            if any("val/AP" in entry for entry in history):
                charts["AP by epoch"] = _ap_by_epoch(history)
            charts |= _losses_by_epoch(history)
        charts |= curve_charts(analysis)
        charts["Cost of mistakes"] = _costs(analysis)
        charts["Calibration"] = _calibration(analysis)
    return {title: as_svg(figure, title) for title, figure in charts.items()}


def curve_charts(analysis: Analysis, class_names: Sequence[str] | None = None) -> dict[str, Figure]:
    """Precision over recall, and F1 over the score threshold, of every class and of all together.

    Args:
        analysis: of the detections.
        class_names: for the legend; None for those of the analysis.
    """
    class_names = class_names or analysis.boxes.class_names
    curves, overall = analysis.curves, analysis.overall
    with matplotlib.rc_context(STYLE):
        precision = _by_class(
            analysis,
            class_names,
            RECALLS,
            [c.precision_at_recall for c in curves],
            overall.precision_at_recall,
            "recall",
            "precision",
        )
        f1 = _by_class(analysis, class_names, THRESHOLDS, [c.f1 for c in curves], overall.f1, "score threshold", "F1")
        best = overall.best_threshold
        f1.axes[0].axvline(best, color=INK, linewidth=1, linestyle=":")
        f1.axes[0].annotate(f" best {best:.2f}", (best, 0.02), color=INK, fontsize=9)
    return {"Precision and recall": precision, "F1 and threshold": f1}


def as_pixels(figure: Figure) -> np.ndarray:
    """A chart as uint8 ``[H, W, 3]`` on white."""
    for text in figure.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontproperties(FontProperties(fname=font_file(text.get_text()), size=text.get_fontsize()))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _by_class(
    analysis: Analysis,
    class_names: Sequence[str],
    x: np.ndarray,
    of_classes: Sequence[np.ndarray],
    together: np.ndarray,
    across: str,
    up: str,
) -> Figure:
    figure, axes = new_figure()
    few = len(of_classes) <= _MOST_IN_LEGEND
    linewidth, alpha = (1.6, 1.0) if few else (1.0, 0.5)
    in_legend = {}
    for k, (curves, y) in enumerate(zip(analysis.curves, of_classes, strict=True)):
        if curves.num_boxes:
            colour = [channel / 255 for channel in class_colour(k)]
            (line,) = axes.plot(x, y, color=colour, gid=f"class-{k}", linewidth=linewidth, alpha=alpha)
            if few:
                in_legend[line] = class_names[k]
    (line,) = axes.plot(x, together, color=INK, linewidth=2, linestyle="--")
    in_legend[line] = "all boxes"
    axes.set(xlabel=across, ylabel=up, xlim=(0, 1), ylim=(0, 1.02))
    legend = axes.legend(list(in_legend), [str(place) for place in range(len(in_legend))], loc="best", fontsize=9)
    for text, name in zip(legend.get_texts(), in_legend.values(), strict=True):
        text.set_text(name)  # not before: a label that begins with an underscore is left out
    return figure


def _ap_by_epoch(history: Sequence[Mapping[str, float]]) -> Figure:
    figure, axes = new_figure()
    for name, style in (("AP", "-"), ("AP50", "--"), ("AP75", ":")):
        known = [(entry["epoch"], 100 * entry[f"val/{name}"]) for entry in history if f"val/{name}" in entry]
        if known:
            axes.plot(*zip(*known, strict=True), linestyle=style, color=ACCENT, label=name, marker=".")
    axes.set(xlabel="epoch", ylabel="%")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(loc="best", fontsize=9)
    return figure


def _losses_by_epoch(history: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    charts = {}
    for key, title in _LOSSES.items():
        if not any(f"loss/{key}" in entry for entry in history):
            continue
        figure, axes = new_figure()
        for name, label, colour in ((f"loss/{key}", "training", ACCENT), (f"val/loss_{key}", "validation", SECOND)):
            known = [entry for entry in history if name in entry]
            if known:
                y = [entry[name] for entry in known]
                axes.plot([entry["epoch"] for entry in known], y, color=colour, label=label, marker=".")
        axes.set(xlabel="epoch", ylabel="loss of the last layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend(loc="best", fontsize=9)
        charts[f"Loss: {title}"] = figure
    return charts


def _costs(analysis: Analysis) -> Figure:
    figure, axes = new_figure()
    cost = analysis.mistakes.cost
    names = list(cost)[::-1]
    bars = axes.barh(names, [100 * cost[name] for name in names], color=ACCENT)
    axes.bar_label(bars, fmt="%.1f", padding=3, color=INK)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="points of AP50 lost")
    return figure


def _calibration(analysis: Analysis) -> Figure:
    figure, axes = new_figure()
    calibration = analysis.calibration
    filled = calibration.count > 0
    middle = (np.arange(len(filled)) + 0.5) / len(filled)
    axes.bar(middle[filled], calibration.right[filled], width=0.09, color=ACCENT, alpha=0.85)
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    return figure
