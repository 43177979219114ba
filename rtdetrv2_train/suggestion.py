"""Suggestion: a label that is likely to be wrong, and what should be there instead. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

SuggestionKind = Literal["missing box", "no object", "wrong class", "badly placed"]
SUGGESTION_KINDS: tuple[SuggestionKind, ...] = get_args(SuggestionKind)
BoxXYWH = tuple[float, float, float, float]


@dataclass(frozen=True)
class Suggestion:
    """A place in a set where a label is likely to be wrong or missing.

    Boxes are left, top, width, height in pixels, as in the annotation table. What does not apply is None: a missing box
    has no label, and where nobody finds an object there is no detection.

    Attributes:
        kind: ``missing box``: a detection without a label; ``no object``: a label that no detection confirms;
            ``wrong class``: a label on an object of another class; ``badly placed``: a label beside its object, or of
            another size.
        suspicion: how likely it is that the label is wrong, in [0, 1], comparable between kinds.
        image_id: id of the image in the annotation table.
        annotation: row of the label among the ``raw_`` arrays of the annotation table.
        label_class: name of the label's class.
        label_box: its box.
        found_class: name of the class of the detection that speaks against the label.
        found_box: its box.
        found_score: its score, in [0, 1].
    """

    kind: SuggestionKind
    suspicion: float
    image_id: int
    annotation: int | None = None
    label_class: str | None = None
    label_box: BoxXYWH | None = None
    found_class: str | None = None
    found_box: BoxXYWH | None = None
    found_score: float | None = None

    def __str__(self) -> str:
        """What is wrong, in a few words: ``wrong class: WBC, found Platelets 0.80``."""
        found = None if self.found_score is None else f"{self.found_class} {self.found_score:.2f}"
        parts = [self.label_class, f"found {found}" if self.label_class and found else found]
        return f"{self.kind}: {', '.join(part for part in parts if part)}"
