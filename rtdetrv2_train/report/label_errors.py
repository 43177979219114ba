"""The section of a page with the labels that are likely to be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.report.cut_outs import cut_out, reader_of
from rtdetrv2_train.report.embedding import Picture, drawn_box
from rtdetrv2_train.report.pictures import ReadImage
from rtdetrv2_train.suggestion import SUGGESTION_KINDS, Suggestion

PICTURES = 100
OF_EACH_KIND = 24
"""Suggestions of a kind that are shown, if there are so many, also beyond the first of all."""
_LETTERS = 15  # across a picture, about
_OF_LABEL, _OF_OTHERS, _OF_DETECTION = "truth", "truth other", "wrong"


@dataclass(frozen=True)
class _Shown:
    """A suggestion on the page: its place in the list, and its picture."""

    place: int
    suggestion: Suggestion
    file_name: str
    picture: Picture


def label_errors_section(
    suggestions: Sequence[Suggestion], table: AnnotationTable, part: str, most: int = PICTURES
) -> Markup:
    """The section as HTML, for a page with the style of ``report.css``; it needs no script and no other file.

    Args:
        suggestions: in the order in which to show them.
        table: of the set, whose images are read.
        part: name of the part, ``train`` or ``val``.
        most: suggestions with a picture, and those up to :data:`OF_EACH_KIND` of a kind; the others are counted.
    """
    environment = Environment(loader=PackageLoader("rtdetrv2_train.report"), autoescape=True, trim_blocks=True)
    counts = Counter(suggestion.kind for suggestion in suggestions)
    section = environment.get_template("label_errors.html").render(
        part=part,
        counts={kind: counts[kind] for kind in SUGGESTION_KINDS if counts[kind]},
        number=len(suggestions),
        shown=_shown(suggestions, table, most),
        most=most,
        letters=_LETTERS,
    )
    return Markup(section)


def suggestion_picture(suggestion: Suggestion, table: AnnotationTable, read: ReadImage) -> Picture | None:
    """A cut-out of the image around the label and the detection, with the other labels there; None if it is unreadable.

    Args:
        suggestion: about the set.
        table: of the set.
        read: reads its images, see :func:`rtdetrv2_train.report.cut_outs.reader_of`.
    """
    pixels = read(suggestion.image_id)
    if pixels is None:
        return None
    of_image = np.flatnonzero(table.image_ids[table.raw_images] == suggestion.image_id)
    others = [row for row in of_image.tolist() if row != suggestion.annotation]
    labels = {name: label for label, name in enumerate(table.class_names)}
    drawn = []
    for name, box, score, kind in (
        (suggestion.label_class, suggestion.label_box, None, _OF_LABEL),
        (suggestion.found_class, suggestion.found_box, suggestion.found_score, _OF_DETECTION),
    ):
        if name is not None and box is not None:
            drawn.append({**drawn_box(np.array(box), labels.get(name, -1), score, kind), "name": name})
    around = [
        {**drawn_box(table.raw_boxes[row], table.raw_labels[row], None, _OF_OTHERS), "name": ""} for row in others
    ]
    return cut_out(pixels, drawn, str(suggestion), around)


def _shown(suggestions: Sequence[Suggestion], table: AnnotationTable, most: int) -> list[_Shown]:
    read = reader_of(table)
    names: dict[int, Any] = dict(zip(table.image_ids.tolist(), table.file_names.tolist(), strict=True))
    shown: list[_Shown] = []
    of_kind: Counter[str] = Counter()
    for place, suggestion in enumerate(suggestions, start=1):
        if len(shown) >= most and of_kind[suggestion.kind] >= OF_EACH_KIND:
            continue
        picture = suggestion_picture(suggestion, table, read)
        if picture is not None:
            shown.append(_Shown(place, suggestion, names[suggestion.image_id], picture))
            of_kind[suggestion.kind] += 1
    return shown
