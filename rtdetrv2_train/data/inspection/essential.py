"""What every training looks at before it begins: the checks that need no pixels, a line for each."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.box_checks import box_findings
from rtdetrv2_train.data.inspection.class_checks import class_findings
from rtdetrv2_train.data.inspection.findings import Finding, by_level
from rtdetrv2_train.data.inspection.overlap_checks import annotation_findings, file_findings

# What reading the parts has said already, in its own words.
_SAID = ("no_area", "outside", "unusable_annotations", "shared_files")


def essential_lines(train: AnnotationTable, val: AnnotationTable) -> list[str]:
    """What looks wrong, the worst first, and how to see it; empty where nothing does.

    Args:
        train: what is trained on.
        val: what is evaluated on, with the labels of ``train``; perhaps the same table.
    """
    found = by_level([each for each in _findings(train, val) if each.level != "note" and each.check not in _SAID])
    lines = [f"{each.level} in the data, {each.part}: {each.message}" for each in found]
    return [*lines, "rtdetrv2 inspect with the same data settings shows them, and mends some"] if lines else []


def _findings(train: AnnotationTable, val: AnnotationTable) -> Iterator[Finding]:
    parts = {"train": train} if val is train else {"train": train, "val": val}
    for part, table in parts.items():
        yield from (each for each in box_findings(part, table) if not _is_of_whole_part(each))
    yield from class_findings(parts)
    if val is not train:
        yield from file_findings(train, "val", val)
        yield from annotation_findings(train, "val", val)


def _is_of_whole_part(finding: Finding) -> bool:
    """Whether all boxes are meant in another way, which reading the part has said already."""
    return finding.check.startswith("boxes_as_") and finding.count == finding.total
