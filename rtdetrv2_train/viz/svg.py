"""The style of charts, and charts as SVG that takes the colours of the page around it."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"  # replaced by the colour of the page's text
STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters, in the page's font
    "text.parse_math": False,  # a class may be called "5$ and 10$"
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
}
ACCENT = "#2f7de1"
SECOND = "#e0792f"


def new_figure() -> tuple[Figure, Axes]:
    """An empty chart."""
    figure = Figure(figsize=(5.4, 3.5), layout="constrained")
    return figure, figure.add_subplot()


def as_svg(figure: Figure, title: str) -> str:
    """The chart without fixed size, date and header, with names of its own for what it refers to within itself."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # here; the page will have its own font
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px inherit; font-size: \1px", text)
    text = re.sub(r"^<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>", r'<svg viewBox="\1" role="img">', text, flags=re.DOTALL)
    # Two charts have lines of the same class: a class instead of an identifier, which must be unique in a page.
    return re.sub(r'id="(class-\d+)"', r'class="curve \1"', text)
