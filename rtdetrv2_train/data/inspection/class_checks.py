"""Classes that are one, that have no box, or hardly any, or others in one part than in the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.classes import match_classes
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.findings import Finding, Level, Parts, counted, quoted_names

_FEW_IMAGES = 10  # of a class: too few to learn it from
_MOST_CELLS = 2**22  # of images and classes that are looked at at once
_LARGE_SET = 200  # images, of which a class should have more than that
_TIMES, _LEAST_EXPECTED = 4.0, 30.0  # by which shares of a class may differ between parts; images that tell


def class_findings(parts: Parts) -> Iterator[Finding]:
    """What is wrong with the classes of the parts.

    Args:
        parts: ``train``, and perhaps ``val``.
    """
    for part, table in parts.items():
        yield from _same_names(part, table)
    train = parts["train"]
    counts = images_of_classes(train)
    yield from _empty(train, counts)
    yield from _rare(train, counts)
    for part, table in parts.items():
        if part != "train":
            yield from _differing(part, table, train, counts)


def images_of_classes(table: AnnotationTable) -> NDArray[np.int64]:
    """In how many images each class has a box to train on ``[C]``."""
    counts = np.zeros(table.num_classes, dtype=np.int64)
    at_once = max(1, _MOST_CELLS // max(table.num_classes, 1))
    for start in range(0, len(table), at_once):
        offsets = table.offsets[start : start + at_once + 1]
        has = np.zeros((len(offsets) - 1, table.num_classes), dtype=bool)
        images = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        has[images, table.labels[offsets[0] : offsets[-1]]] = True
        counts += has.sum(axis=0)
    return counts


def same_classes(names: Sequence[str]) -> list[list[int]]:
    """Groups of labels whose names differ in case, blanks, hyphens and underscores only, or not at all."""
    groups: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        groups.setdefault(_folded(name), []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _folded(name: str) -> str:
    between = " " if re.search(r"\d", name) else ""  # 1-1 is not 11
    return re.sub(r"[\s_-]+", between, name.strip()).casefold()


def _same_names(part: str, table: AnnotationTable) -> Iterator[Finding]:
    groups = same_classes(table.class_names)
    if not groups:
        return
    boxes = np.bincount(table.labels, minlength=table.num_classes)
    named = [" and ".join(f"'{table.class_names[k]}' ({boxes[k]} boxes)" for k in group) for group in groups]
    smaller = [k for group in groups for k in group if k != max(group, key=lambda label: boxes[label])]
    which = _first_of_each(table, smaller)
    yield Finding(
        "same_class_names",
        "warning",
        part,
        len(smaller),
        table.num_classes,
        "classes",
        f"classes differ in the spelling of their names only: {'; '.join(named[:3])}",
        "give them one name; fix=true gives them that of the most boxes",
        images=table.raw_images[which],
        boxes=which,
        mended_by_fix=True,
    )


def _empty(train: AnnotationTable, counts: NDArray[np.int64]) -> Iterator[Finding]:
    if len(empty := np.flatnonzero(counts == 0)):
        yield Finding(
            "empty_classes",
            "note",
            "train",
            len(empty),
            train.num_classes,
            "classes",
            f"{counted(len(empty), 'class')} without a box to learn from: {_named(train, empty)}",
            "annotate some, or take the classes out of the labels: the model will never find them",
            notes=[train.class_names[label] for label in empty.tolist()],
        )


def _rare(train: AnnotationTable, counts: NDArray[np.int64]) -> Iterator[Finding]:
    few = (counts > 0) & (counts < _FEW_IMAGES)
    few[[label for labels in same_classes(train.class_names) for label in labels]] = False  # which are to be one
    rare = np.flatnonzero(few)
    if not len(rare):
        return
    level: Level = "warning" if len(train) >= _LARGE_SET else "note"
    shown = [f"{train.class_names[label]} ({counts[label]})" for label in rare[np.argsort(counts[rare])].tolist()]
    which = _first_of_each(train, rare.tolist())
    yield Finding(
        "rare_classes",
        level,
        "train",
        len(rare),
        train.num_classes,
        "classes",
        f"{counted(len(rare), 'class')} in fewer than {_FEW_IMAGES} images: {quoted_names(shown)}",
        "annotate more of them, or correct the names; data.repeat_threshold shows their images more often",
        images=train.raw_images[which],
        boxes=which,
    )


def _differing(
    part: str, table: AnnotationTable, train: AnnotationTable, there: NDArray[np.int64]
) -> Iterator[Finding]:
    """Classes that are in one part and not, or hardly, in the other, where each is in so many images."""
    matched = match_classes(table.class_names, train.class_names)
    here = images_of_classes(table)
    of_train = np.array([0 if label is None else there[label] for label in matched], dtype=np.int64)
    if len(untrained := np.flatnonzero((here > 0) & (of_train == 0))):
        which = _first_of_each(table, untrained.tolist())
        yield Finding(
            "untrained_classes",
            "warning",
            part,
            len(untrained),
            table.num_classes,
            "classes",
            f"{counted(len(untrained), 'class')} with boxes here and none to learn from: {_named(table, untrained)}",
            "the model cannot find them: move some of their images to the training part, or correct the names",
            images=table.raw_images[which],
            boxes=which,
        )
    if len(unmeasured := np.flatnonzero((here == 0) & (of_train > 0))):
        yield Finding(
            "unmeasured_classes",
            "note",
            part,
            len(unmeasured),
            table.num_classes,
            "classes",
            f"{counted(len(unmeasured), 'class')} that are trained on, without a box here: {_named(table, unmeasured)}",
            "their AP is not measured; another split has some: data.val.fraction",
            notes=[table.class_names[label] for label in unmeasured.tolist()],
        )
    expected = of_train / max(len(train), 1) * len(table)
    tells = np.maximum(here, expected) >= _LEAST_EXPECTED
    apart = np.maximum(here, expected) >= _TIMES * np.minimum(here, expected)
    if len(shifted := np.flatnonzero(tells & apart & (here > 0) & (of_train > 0))):
        shares = [
            f"{table.class_names[k]} ({of_train[k] / len(train):.1%} and {here[k] / len(table):.1%})"
            for k in shifted.tolist()
        ]
        yield Finding(
            "different_class_shares",
            "warning",
            part,
            len(shifted),
            table.num_classes,
            "classes",
            f"{counted(len(shifted), 'class')} in other shares of images than in training: {quoted_names(shares, 3)}",
            "look whether classes are confused in one part; data.val.fraction makes a split with equal shares",
            notes=shares,
        )


def _first_of_each(table: AnnotationTable, labels: Sequence[int]) -> NDArray[np.int64]:
    """The first annotations of some classes, that can be shown as examples."""
    found = [np.flatnonzero(~table.raw_crowd & (table.raw_labels == label))[:4] for label in labels[:20]]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _named(table: AnnotationTable, labels: NDArray[np.int64]) -> str:
    return quoted_names([table.class_names[label] for label in labels.tolist()])
