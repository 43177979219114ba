"""Writing the page of an inspection: one HTML file that contains everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from rtdetrv2_train.data.inspection.findings import LEVELS, Finding, Parts
from rtdetrv2_train.data.inspection.recommendations import Recommendation
from rtdetrv2_train.files import save_text
from rtdetrv2_train.report.embedding import embedded
from rtdetrv2_train.report.inspection_pictures import pictures_of
from rtdetrv2_train.report.label_errors import label_errors_section
from rtdetrv2_train.suggestion import Suggestion
from rtdetrv2_train.viz.colours import class_colour
from rtdetrv2_train.viz.inspection_charts import inspection_charts

_NOTES_LISTED = 20


@dataclass(frozen=True)
class InspectedSet:
    """What the page is about.

    Attributes:
        title: of the page.
        parts: the tables.
        contents: each part in numbers, see `part_contents`.
        classes: each class in numbers, see `class_contents`.
        findings: what is wrong, the worst first.
        recommendations: what to begin with.
        image_size: (height, width) of the input in pixels.
        facts: what was done: name and value.
        suggestions: of each part the labels that are likely to be wrong; nothing where no run was asked.
    """

    title: str
    parts: Parts
    contents: Mapping[str, Mapping[str, Any]]
    classes: Sequence[Mapping[str, Any]]
    findings: Sequence[Finding]
    recommendations: Sequence[Recommendation]
    image_size: Sequence[int]
    facts: Mapping[str, str]
    suggestions: Mapping[str, Sequence[Suggestion]] = field(default_factory=dict)


def write_inspection_page(path: Path, inspected: InspectedSet) -> Path:
    """Write the page. It needs no other file and no network.

    Args:
        path: the file to write.
        inspected: what it is about.

    Returns:
        ``path``.
    """
    environment = Environment(loader=PackageLoader("rtdetrv2_train.report"), autoescape=True, trim_blocks=True)
    environment.filters["embedded"] = embedded
    names = [row["name"] for row in inspected.classes]
    charts = inspection_charts(inspected.parts, inspected.classes, inspected.image_size)
    page = environment.get_template("inspect.html").render(
        inspected=inspected,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        counts={level: sum(each.level == level for each in inspected.findings) for level in LEVELS},
        notes_listed=_NOTES_LISTED,
        label_errors={
            part: label_errors_section(suggestions, inspected.parts[part], part)
            for part, suggestions in inspected.suggestions.items()
        },
        charts={title: Markup(svg) for title, svg in charts.items()},
        data={
            "classes": [{"name": name, "colour": f"rgb{class_colour(k)}"} for k, name in enumerate(names)],
            "findings": [
                [asdict(picture) for picture in pictures_of(each, inspected.parts, names)]
                for each in inspected.findings
            ],
        },
    )
    return save_text(path, page)
