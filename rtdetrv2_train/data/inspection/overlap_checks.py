"""Images of one part that are in another too, by the names of their files and by their annotations."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.findings import Finding, counted
from rtdetrv2_train.data.split import picture_of

_LEAST_BOXES = 2  # that two images hardly ever share by chance
_DIGITS = 100  # of a pixel, to which boxes are compared
_REMEDY = "AP will be too high: take them out of one part; fix=true takes them out of what is trained on"


def shared_files(train: AnnotationTable, val: AnnotationTable) -> list[tuple[int, int]]:
    """Images of both parts that are the same file: their numbers in ``val`` and in ``train``."""
    own, others = (table.image_folder.absolute() for table in (train, val))
    if not (own.is_relative_to(others) or others.is_relative_to(own)):
        return []
    names, other_names = (table.file_names.tolist() for table in (train, val))
    if own != others:
        names = [os.path.normpath(own / name) for name in names]
        other_names = [os.path.normpath(others / name) for name in other_names]
    places = {name: place for place, name in enumerate(names)}
    return [(place, places[name]) for place, name in enumerate(other_names) if name in places]


def file_findings(train: AnnotationTable, part: str, val: AnnotationTable) -> Iterator[Finding]:
    """The same files, and versions of one picture by their names, in both parts.

    Args:
        train: what is trained on.
        part: the name of the other one.
        val: what is evaluated on.
    """
    shared = np.array(shared_files(train, val), dtype=np.int64).reshape(-1, 2)
    if len(shared):
        message = f"{counted(len(shared), 'image')} of {len(val):,} in files trained on, too"
        yield _of_images("shared_files", part, val, shared, message)
    pictures: dict[str, int] = {}
    for place, name in enumerate(train.file_names.tolist()):
        if (picture := picture_of(name)) != name:
            pictures.setdefault(picture, place)
    found = [
        (place, pictures[picture])
        for place, name in enumerate(val.file_names.tolist())
        if (picture := picture_of(name)) != name and picture in pictures
    ]
    versions = np.array(found, dtype=np.int64).reshape(-1, 2)
    versions = versions[~np.isin(versions[:, 0], shared[:, 0])]
    if len(versions):
        message = f"{counted(len(versions), 'version')} of pictures that are trained on, by their names"
        yield _of_images("shared_versions", part, val, versions, message)


def annotation_findings(train: AnnotationTable, part: str, val: AnnotationTable) -> Iterator[Finding]:
    """Other files with the very boxes of an image that is trained on: copies, told without a look at the pixels.

    Args:
        train: what is trained on.
        part: the name of the other one.
        val: what is evaluated on, with the labels of ``train``.
    """
    signs, others = (_signatures(table) for table in (train, val))
    others[[place for place, _ in shared_files(train, val)]] = 0
    shared = np.flatnonzero(np.isin(others, signs[signs != 0]))
    if len(shared):
        order = np.argsort(signs, kind="stable")
        beside = order[np.searchsorted(signs[order], others[shared])]
        message = f"{counted(len(shared), 'image')} of {len(val):,} with the very boxes of one that is trained on"
        yield _of_images("shared_boxes", part, val, np.stack([shared, beside], axis=1), message)


def _signatures(table: AnnotationTable) -> NDArray[np.uint64]:
    """A number for the size, boxes and labels of each image ``[I]``; 0 where there are too few boxes."""
    kept = np.flatnonzero(~table.raw_crowd)
    images = table.raw_images[kept]
    values = np.rint(table.raw_boxes[kept] * _DIGITS).astype(np.int64).view(np.uint64)
    mixed = _mixed(table.raw_labels[kept].astype(np.uint64))
    for column in values.T:
        mixed = _mixed(mixed ^ column)
    signs = _mixed((table.heights.astype(np.uint64) << np.uint64(32)) ^ table.widths.astype(np.uint64))
    np.add.at(signs, images, mixed)  # in whatever order they are
    signs[np.bincount(images, minlength=len(table)) < _LEAST_BOXES] = 0
    return signs


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose bits all depend on all bits of these (the finaliser of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _of_images(check: str, part: str, val: AnnotationTable, pairs: NDArray[np.int64], message: str) -> Finding:
    return Finding(
        check,
        "error",
        part,
        len(pairs),
        len(val),
        "images",
        f"{message}, such as '{val.file_names[pairs[0, 0]]}'",
        _REMEDY,
        images=pairs[:, 0],
        beside_images=pairs[:, 1],
        other_part="train",
        mended_by_fix=True,
    )
