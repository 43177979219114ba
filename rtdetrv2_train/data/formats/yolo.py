"""Reading a YOLO set, as Ultralytics, Roboflow, Darknet and many tools write it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.folder_state import names_in, state_of_labels, state_of_names, state_of_some
from rtdetrv2_train.data.formats.source import Format, Source, state_of_files
from rtdetrv2_train.data.formats.yolo_images import ImageFolders, image_folders_of, images_of, labels_of
from rtdetrv2_train.data.formats.yolo_layout import NAME, find, is_no_label, names_wanted
from rtdetrv2_train.data.formats.yolo_rows import RowError, read_rows
from rtdetrv2_train.data.formats.yolo_yaml import YAML_SUFFIXES, read_data_yaml
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.images.sizes import image_sizes
from rtdetrv2_train.data.overlap import overlapped
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_BLOCK = 2**16


def read(source: Source, exif: Exif) -> AnnotationTable:
    """Read a part of a YOLO set.

    Category ids are YOLO's indices of the classes. Images are in the order of their names, and an image without a
    label file has no objects. The id of an annotation is the number of its row in its file.

    Args:
        source: the part.
        exif: ``ignore``: labels are of the image as stored. Else of the image turned as its EXIF says.

    Raises:
        UserError: if there is no image, an image or a label file cannot be read, or a row cannot be used.
    """
    classes, keypoints = _classes(source)
    folders = images_of(source)
    if not folders:
        raise UserError(
            f"'{source.listing or source.images}' holds no image: correct '{source.annotations}', or put the images "
            "there"
        )
    files = _named(source, folders)
    builder = TableBuilder(source.annotations, source.images, classes)
    sizes = image_sizes(source.images, [name for _, _, name in files], exif, source.may_lack_images)
    for number, ((_, _, name), (height, width)) in enumerate(zip(files, sizes, strict=True), 1):
        builder.add_image(number, name, height, width)
    labels = _Labels(source, classes, keypoints)
    paths = [labels.path(folder, base) for folder, base, _ in files]
    for number, (path, size, content) in enumerate(zip(paths, sizes, overlapped(_content, paths), strict=True), 1):
        if path:
            labels.add(builder, number, path, content, size)
    labels.report(folders)
    return builder.table()


def state(source: Source) -> dict[str, Any]:
    """What changes with the classes, the list of images and the label files of a part; see `state_of_labels`.

    A single image that is replaced by one of another size under the same name may go unnoticed.
    """
    index = source.annotations.absolute().parent
    folders = image_folders_of(source, index)
    files = [path for path in (source.annotations, source.listing, source.classes) if path and path.is_file()]
    labels = dict.fromkeys(labels_of(source, folder) for folder in folders)
    return {
        **state_of_files(files),
        "image_names": state_of_names(folders.items()),
        "images_looked_at": state_of_some(folders.items()),
        "labels": state_of_labels(labels, ".txt", index),
    }


FORMAT = Format(NAME, "YOLO", find, read, state)


def _classes(source: Source) -> tuple[Mapping[int, str], int]:
    """The name of each class, and the numbers that a pose has after its box."""
    file = source.classes or source.annotations
    if file.suffix.lower() in YAML_SUFFIXES:
        described = read_data_yaml(file)
        if described.nc not in (None, len(described.names)):
            names, nc = len(described.names), described.nc
            logger.warning("'%s': 'nc' is %d, and 'names' has %d: the names count", file, nc, names)
        return described.names, described.keypoints
    if source.classes is None:
        raise UserError(names_wanted(source))
    try:
        lines = source.classes.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the names of the classes, '{source.classes}', cannot be read: {error}") from error
    found = dict(enumerate(map(str.strip, lines)))
    if not found or not all(found.values()):
        empty = next((index + 1 for index, name in found.items() if not name), 1)
        raise UserError(f"'{source.classes}', line {empty} is empty: give the name of every class, one a line")
    return found, 0


def _named(source: Source, folders: ImageFolders) -> list[tuple[Path, str, str]]:
    """Folder, name in it, and name from the folder of all images, of each image, in order."""
    found = []
    for folder, names in folders.items():
        inner = os.path.relpath(folder, source.images)
        before = "" if inner == "." else f"{inner}/"
        found += [(folder, name, before + name) for name in names]
    return sorted(found, key=lambda file: file[2])


class _Labels:
    """The label files of a part.

    Args:
        source: the part.
        classes: name of each class.
        keypoints: see `read_rows`.
    """

    def __init__(self, source: Source, classes: Mapping[int, str], keypoints: int) -> None:
        self._source = source
        self._classes = classes
        self._keypoints = keypoints
        self._folders: dict[Path, tuple[Path, set[str]]] = {}
        self._read = 0
        self._repeated = 0

    def path(self, folder: Path, base: str) -> str:
        """The label file of an image; empty where it has none.

        Args:
            folder: that the image lies in.
            base: its name there.
        """
        labels, present = self._folder(folder)
        stem = base.rpartition(".")[0]
        return next((f"{labels}/{name}" for name in (f"{stem}.txt", f"{stem}.TXT") if name in present), "")

    def add(self, builder: TableBuilder, number: int, path: str, content: bytes, size: tuple[int, int]) -> None:
        """Add the objects of an image.

        Args:
            builder: takes them.
            number: id of the image.
            path: its label file.
            content: what is in there.
            size: its (height, width) in pixels.

        Raises:
            UserError: if a row cannot be used.
        """
        self._read += 1
        try:
            objects, faults, repeated = read_rows(content, self._classes, self._keypoints)
        except RowError as error:
            raise UserError(f"'{path}', line {error.line}: {error}{self._way_out(str(error))}") from error
        self._repeated += repeated
        height, width = size
        for line, label, (left, top, across, down) in objects:
            builder.add_annotation(
                number, int(label), (left * width, top * height, across * width, down * height), line
            )
        for line, fault in faults:
            builder.add_problem(number, line, fault)

    def report(self, folders: ImageFolders) -> None:
        """Log what is unusual about the label files."""
        annotations = self._source.annotations
        if self._repeated:
            logger.warning("'%s': %d rows are repeated; each counts once", annotations, self._repeated)
        if not self._read:
            where = " and ".join(f"'{labels}'" for labels, _ in list(self._folders.values())[:2])
            logger.warning("'%s': no image has a label file; looked for them in %s", annotations, where)
        stray = [] if self._is_listed() else list(self._stray(folders))
        if stray:
            logger.warning("'%s': %d label files have no image, the first is '%s'", annotations, len(stray), min(stray))

    def _is_listed(self) -> bool:
        """Whether a list picks images, so that label files of others are to be expected."""
        return self._source.listing is not None and self._source.listing.is_file()

    def _stray(self, folders: ImageFolders) -> Iterator[Path]:
        expected: dict[Path, set[str]] = {}
        for folder, names in folders.items():
            labels, _ = self._folder(folder)
            expected.setdefault(labels, set()).update(
                f"{name.rpartition('.')[0]}{suffix}" for name in names for suffix in (".txt", ".TXT")
            )
        for labels, present in self._folders.values():
            yield from (labels / name for name in present - expected[labels] if not is_no_label(name))

    def _folder(self, folder: Path) -> tuple[Path, set[str]]:
        """The folder of the labels of a folder of images, and the names of the label files in it."""
        if folder not in self._folders:
            labels = labels_of(self._source, folder)
            present = set(names_in(labels, (".txt",)))
            self._folders[folder] = labels, present
        return self._folders[folder]

    def _way_out(self, reason: str) -> str:
        if not reason.startswith("class"):
            return ": a row is the class, then x, y, width and height, or the points of a polygon"
        indices = sorted(self._classes)
        count, first, last = len(indices), indices[0], indices[-1]
        which = f"{first} to {last}" if last - first < count else ", ".join(map(str, indices[:20]))
        named_in = self._source.classes or self._source.annotations
        return f", and '{named_in}' names {count} classes, {which}: correct the row, or add the name"


def _content(path: str) -> bytes:
    """What is in a label file; nothing where there is none."""
    if not path:
        return b""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            content = os.read(file, _BLOCK)
            while len(content) % _BLOCK == 0 and (more := os.read(file, _BLOCK)):
                content += more
            return content
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"the label file '{path}' cannot be read: {error.strerror}") from error
