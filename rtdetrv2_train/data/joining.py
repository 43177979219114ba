"""Several annotation tables as one, their classes united by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path, PurePath

import numpy as np

from rtdetrv2_train.classes import Classes, match_classes
from rtdetrv2_train.data.annotations import AnnotationTable

logger = logging.getLogger(__name__)


def joined(tables: Sequence[AnnotationTable]) -> AnnotationTable:
    """One table of all images and boxes.

    The first table keeps its ids of classes and images. Ids of others that are taken already are given anew.

    Args:
        tables: at least one, read in the same way.
    """
    first, *others = tables
    if not others:
        return first
    classes = united([table.classes for table in tables])
    folder = Path(os.path.commonpath([table.image_folder.absolute() for table in tables]))
    source = " + ".join(str(table.annotation_file) for table in tables)
    as_one = replace(
        _appended([table.relabelled(classes) for table in tables], folder),
        annotation_file=Path(source),
        image_folder=folder,
        problems=tuple(problem for table in tables for problem in table.problems),
        unreadable=tuple(name for table in tables for name in table.unreadable),
        reader_notes=tuple(note for table in tables for note in table.reader_notes),
        index=None,
    )
    logger.info("%d sets are joined: %d images, %d classes", len(tables), len(as_one), as_one.num_classes)
    return as_one


def united(classes: Sequence[Classes]) -> Classes:
    """The classes of all; those that the first lacks follow, in their order and with ids of their own."""
    return reduce(_of_both, classes)


def _of_both(classes: Classes, others: Classes) -> Classes:
    matched = match_classes(others.names, classes.names)
    new = [(name, number) for name, number, at in zip(others.names, others.ids, matched, strict=True) if at is None]
    names, ids = list(classes.names), list(classes.ids)
    for name, number in new:
        names.append(name)
        ids.append(number if number > ids[-1] else ids[-1] + 1)  # ascending, as everywhere
    return Classes(tuple(names), tuple(ids), classes.source)


def _appended(tables: Sequence[AnnotationTable], folder: Path) -> AnnotationTable:
    """The arrays of tables of the same classes one after the other."""
    first = tables[0]
    starts = np.cumsum([0, *(len(table) for table in tables)])
    box_starts = np.cumsum([0, *(len(table.boxes) for table in tables)])
    ids = np.concatenate([table.image_ids for table in tables])
    if len(np.unique(ids)) < len(ids):
        ids = np.arange(1, len(ids) + 1)
    prefixes = [PurePath(os.path.relpath(table.image_folder.absolute(), folder)) for table in tables]
    file_names = [
        (p / name).as_posix() for p, t in zip(prefixes, tables, strict=True) for name in t.file_names.tolist()
    ]
    pairs = list(zip(tables, starts.tolist(), strict=False))
    return replace(
        first,
        image_ids=ids,
        file_names=np.array(file_names, dtype=np.str_),
        heights=np.concatenate([table.heights for table in tables]),
        widths=np.concatenate([table.widths for table in tables]),
        offsets=np.concatenate(
            [[0], *(table.offsets[1:] + start for table, start in zip(tables, box_starts.tolist(), strict=False))]
        ),
        boxes=np.concatenate([table.boxes for table in tables]),
        labels=np.concatenate([table.labels for table in tables]),
        raw_images=np.concatenate([table.raw_images + start for table, start in pairs]),
        raw_labels=np.concatenate([table.raw_labels for table in tables]),
        raw_boxes=np.concatenate([table.raw_boxes for table in tables]),
        raw_areas=np.concatenate([table.raw_areas for table in tables]),
        raw_crowd=np.concatenate([table.raw_crowd for table in tables]),
    )
