"""Charts of what is in a data set, as SVG for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.contents import usable_boxes
from rtdetrv2_train.data.inspection.findings import Parts
from rtdetrv2_train.data.inspection.object_sizes import STRIDES, sides_at
from rtdetrv2_train.viz.svg import ACCENT, INK, SECOND, STYLE, as_svg, new_figure

_COLOURS = {"train": ACCENT, "val": SECOND}
_MOST_CLASSES = 24
_BINS = 40
_MOST_POINTS = 3000
_LONGEST_NAME = 20  # characters


def inspection_charts(parts: Parts, classes: Sequence[Mapping[str, Any]], image_size: Sequence[int]) -> dict[str, str]:
    """Charts by title, in the order to show them.

    Args:
        parts: of the data set.
        classes: in numbers, see `class_contents`.
        image_size: (height, width) of the input in pixels, at which objects are measured.
    """
    with matplotlib.rc_context(STYLE):
        charts = {
            "Size of objects at the input": _sides(parts, image_size),
            "Images of each class": _classes(classes, list(parts)),
            "Boxes in an image": _counts(parts),
            "Size of images": _sizes(parts),
        }
    return {title: as_svg(figure, title) for title, figure in charts.items()}


def _sides(parts: Parts, image_size: Sequence[int]) -> Figure:
    """With the strides of the feature maps as lines."""
    figure, axes = new_figure()
    sides = {part: sides_at(table, image_size, usable_boxes(table)) for part, table in parts.items()}
    largest = max(
        [float(np.hypot(image_size[0], image_size[1])), *(float(each.max(initial=0)) for each in sides.values())]
    )
    _histograms(axes, sides, np.geomspace(1, largest, _BINS))
    for stride in STRIDES:
        axes.axvline(stride, color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_xticks([2**power for power in range(0, int(np.log2(largest)) + 1, 1)])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.set(xlabel="side in pixels of the input; dotted: strides", ylabel="share of boxes")
    return figure


def _counts(parts: Parts) -> Figure:
    figure, axes = new_figure()
    counts = {part: np.diff(table.offsets).astype(np.float64) for part, table in parts.items()}
    most = max((float(np.quantile(each, 0.995)) for each in counts.values() if len(each)), default=1.0)
    width = max(1.0, np.ceil((most + 1) / _BINS))
    _histograms(axes, counts, np.arange(-0.5, most + width + 0.5, width))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="boxes in an image", ylabel="share of images")
    return figure


def _histograms(axes: Axes, values: Mapping[str, NDArray[np.float64]], edges: NDArray[np.float64]) -> None:
    for part, of_part in values.items():
        if len(of_part):
            shares = np.histogram(of_part, edges)[0] / len(of_part)
            axes.stairs(shares, edges, color=_COLOURS.get(part, INK), label=part, fill=True, alpha=0.3)
            axes.stairs(shares, edges, color=_COLOURS.get(part, INK), linewidth=1.4)
    if len(values) > 1:
        axes.legend(fontsize=9)


def _classes(classes: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> Figure:
    """The commonest and the rarest."""
    figure, axes = new_figure()
    ordered = sorted(classes, key=lambda row: -sum(row["images"].values()))
    if len(ordered) > _MOST_CLASSES:
        ordered = [*ordered[: _MOST_CLASSES // 2], *ordered[-_MOST_CLASSES // 2 :]]
    height = 0.8 / len(parts)
    places = np.arange(len(ordered))
    for number, part in enumerate(parts):
        amounts = [row["images"].get(part, 0) for row in ordered]
        axes.barh(places + number * height, amounts, height, color=_COLOURS.get(part, INK), label=part)
    axes.set_yticks(places + 0.4 - height / 2, [_shortened(row["name"]) for row in ordered])
    axes.tick_params(axis="y", labelsize=min(9, 150 / max(len(ordered), 1)), length=0)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    if len(ordered) < len(classes):
        axes.axhline(_MOST_CLASSES / 2 - 0.1 - height / 2, color=INK, linewidth=1, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set(xlabel="images" + (": the commonest and the rarest classes" if len(ordered) < len(classes) else ""))
    if len(parts) > 1:
        axes.legend(fontsize=9, loc="lower right")
    return figure


def _sizes(parts: Parts) -> Figure:
    figure, axes = new_figure()
    for part, table in parts.items():
        widths, heights = _some(table)
        axes.scatter(widths, heights, s=14, alpha=0.35, color=_COLOURS.get(part, INK), label=part, linewidths=0)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set(xlabel="width in pixels", ylabel="height in pixels")
    if len(parts) > 1:
        axes.legend(fontsize=9)
    return figure


def _some(table: AnnotationTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    step = max(1, len(table) // _MOST_POINTS)
    return table.widths[::step], table.heights[::step]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
