"""All checks of a data set, in the order in which they need more: annotations, names of files, pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.folder_state import files_below
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.data.inspection.box_checks import box_findings
from rtdetrv2_train.data.inspection.class_checks import class_findings
from rtdetrv2_train.data.inspection.duplicates import duplicate_findings
from rtdetrv2_train.data.inspection.findings import Finding, Parts, by_level
from rtdetrv2_train.data.inspection.image_checks import image_findings, sizes_of_images, unlisted_finding
from rtdetrv2_train.data.inspection.looks import Look, look_at_all
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from rtdetrv2_train.data.inspection.overlap_checks import file_findings
from rtdetrv2_train.data.inspection.size_checks import size_findings


@dataclass(frozen=True)
class Inspected:
    """A data set that was looked at.

    Attributes:
        parts: its tables.
        looks: at each image of each part.
        findings: of all checks, the worst first.
    """

    parts: Parts
    looks: Mapping[str, Sequence[Look]]
    findings: Sequence[Finding]


def inspect_set(
    parts: Parts,
    further: Sequence[AnnotationTable],
    image_size: Sequence[int],
    most_boxes: int,
    looks_file: LooksFile,
    seen: Callable[[int], object] = lambda count: None,
) -> Inspected:
    """Look at annotations and all images.

    Args:
        parts: ``train``, and perhaps ``val``, each with its own classes.
        further: parts that are not looked at, whose images belong to the set.
        image_size: (height, width) of the model's input in pixels.
        most_boxes: that the model can find in an image.
        looks_file: keeps what is seen of images.
        seen: called with the number of images that were looked at, again and again.
    """
    looks = {
        part: look_at_all([table.path(i) for i in range(len(table))], table.reading.channels, looks_file, seen)
        for part, table in parts.items()
    }
    findings = [*class_findings(parts), *_unlisted(parts, further)]
    for part, table in parts.items():
        sizes = sizes_of_images(table, looks[part])
        findings += image_findings(part, table, looks[part], sizes)
        findings += box_findings(part, table, sizes.swapped | sizes.other)
        findings += size_findings(part, table, image_size, most_boxes)
        if part != "train":
            findings += file_findings(parts["train"], part, table)
    findings += _without_repeats(findings, duplicate_findings(parts, looks))
    return Inspected(parts, looks, by_level(findings))


def _without_repeats(findings: Sequence[Finding], of_pixels: Iterator[Finding]) -> list[Finding]:
    """What pixels tell, but for copies in two parts where these were told by the names of all of their files."""
    told = {each.part: set(each.images.tolist()) for each in findings if each.check == "shared_files"}

    def is_told(each: Finding) -> bool:
        return each.check == "leaked_copies" and set(each.images.tolist()) <= told.get(each.part, set())

    return [each for each in of_pixels if not is_told(each)]


def _unlisted(parts: Parts, further: Sequence[AnnotationTable]) -> Iterator[Finding]:
    listed = {
        os.path.normpath(table.image_folder.absolute() / name)
        for table in [*parts.values(), *further]
        for name in [*table.file_names.tolist(), *table.unreadable]
    }
    looked_at: set[Path] = set()
    for part, table in parts.items():
        folder = table.image_folder.absolute()
        if folder in looked_at:
            continue
        looked_at.add(folder)
        files = [os.path.normpath(here / name) for here, names in files_below(folder, IMAGE_SUFFIXES) for name in names]
        names = [os.path.relpath(file, folder) for file in files if file not in listed]
        if finding := unlisted_finding(part, table, sorted(names), len(files)):
            yield finding
