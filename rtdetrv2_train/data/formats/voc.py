"""Reading a set of XML files in Pascal VOC's format, as the VOC challenge, labelImg and many tools write it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import FileFinder
from rtdetrv2_train.data.formats.folder_state import files_below, state_of_labels
from rtdetrv2_train.data.formats.image_files import images_below, sizes_of, state_of_images
from rtdetrv2_train.data.formats.rows import Rows, numbered
from rtdetrv2_train.data.formats.source import Format, Source, state_of_files
from rtdetrv2_train.data.formats.voc_layout import NAME, XML, find, names_below, names_of, places_of_set
from rtdetrv2_train.data.formats.voc_objects import VocFile, read_voc_file
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.overlap import overlapped
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)


class _Named(NamedTuple):
    """An XML file.

    Attributes:
        name: without its suffix, seen from the folder of annotations.
        content: what it says.
    """

    name: str
    content: VocFile


def read(source: Source, exif: Exif) -> AnnotationTable:
    """Read a part of a set.

    Corners in files of the VOC challenge count from 1, see `read_voc_file`. Objects that are marked as difficult are
    crowd regions: they are not trained on, and do not count in an evaluation. Classes are those of all parts of the
    set, in alphabetical order, with category ids from 1.

    Args:
        source: the part.
        exif: ``apply``: images are opened for their sizes, as they are where an XML file gives none.

    Raises:
        UserError: if a file cannot be read, or belongs to no image, or a list names what is not there.
    """
    names = names_of(source)
    if not names and (upper := [name for _, found in files_below(source.annotations, XML) for name in found]):
        raise UserError(f"'{source.annotations}' holds '{min(upper)}': rename such files to end in .xml")
    if not names:
        raise UserError(f"'{source.listing or source.annotations}' names no XML file: there is nothing to learn from")
    files = list(map(_Named, names, _contents(source.annotations, names)))
    classes = _classes(source, files)
    images = _images(source, files)
    given = [file.content.size for file in files]
    sizes = sizes_of(source, images, given, exif)
    builder = TableBuilder(source.annotations, source.images, {id_: name for name, id_ in classes.items()})
    rows = Rows()
    for image_id, (name, (height, width), file) in enumerate(zip(images, sizes, files, strict=True), 1):
        builder.add_image(image_id, name, height, width)
        for position, entry in enumerate(file.content.objects, 1):
            if entry.box is None:
                rows.add_problem(image_id, f"object {position} of '{file.name}.xml' {entry.fault}")
            else:
                rows.add(image_id, entry.label, entry.box, entry.difficult)
    rows.fill(builder, classes)
    _log_origin(source, files)
    return builder.table()


def state(source: Source) -> dict[str, Any]:
    """What changes with any XML file of the set, the list of the part and the names of images."""
    folders = [folder for other in places_of_set(source) for folder, _ in files_below(other, XML)]
    return {
        **state_of_files([source.listing] if source.listing else []),
        **state_of_images(source.images),
        "labels": state_of_labels(dict.fromkeys(folders), ".xml", source.annotations.absolute().parent),
    }


FORMAT = Format(NAME, "Pascal VOC", find, read, state)


def _contents(folder: Path, names: Sequence[str]) -> Iterator[VocFile]:
    """What the XML files of some names say."""
    return overlapped(lambda name: read_voc_file(folder / f"{name}.xml"), names)


def _classes(source: Source, files: Sequence[_Named]) -> dict[str, int]:
    """The category id of every class of the set."""
    labels = {entry.label for file in files for entry in file.content.objects}
    read_already = {source.annotations / f"{file.name}.xml" for file in files}
    for folder in places_of_set(source):
        names = [name for name in names_below(folder) if folder / f"{name}.xml" not in read_already]
        for content in _contents(folder, names):
            labels.update(entry.label for entry in content.objects)
    classes = numbered(sorted(labels - {""}))
    if not classes:
        raise UserError(f"no XML file of '{source.annotations}' has an object with a name: there is nothing to learn")
    return classes


def _images(source: Source, files: Sequence[_Named]) -> list[str]:
    """The name of the image of each XML file.

    It is the image of the same name as the XML file, else the one that ``<filename>`` gives, else what is near to it:
    tools leave ``<filename>`` as it is when they rename or copy files.
    """
    present = set(images_below(source.images))
    by_stem: dict[str, str] = {}
    for name in sorted(present):
        by_stem.setdefault(name.rpartition(".")[0], name)
    found: list[str | None] = []
    for name, content in files:
        same = content.image in present and content.image.rpartition(".")[0] == name
        found.append(
            content.image if same else by_stem.get(name) or (content.image if content.image in present else None)
        )
    for wished in ([content.image for _, content in files], [name for name, _ in files]):
        missing = [wish for wish, image in zip(wished, found, strict=True) if image is None and wish]
        near = FileFinder(source.images).found(missing, [image for image in found if image]) if missing else {}
        found = [image or near.get(wish) for wish, image in zip(wished, found, strict=True)]
    images = [
        image or (content.image if PurePosixPath(content.image).suffix else f"{name}.jpg")
        for (name, content), image in zip(files, found, strict=True)
    ]
    _check_one_each(source, files, images)
    if not source.part and not source.listing and (left := sorted(present.difference(images))):
        logger.warning(
            "'%s': %d images have no XML file and are left out, the first is '%s'",
            source.annotations,
            len(left),
            left[0],
        )
    return images


def _check_one_each(source: Source, files: Sequence[_Named], images: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for file, image in zip(files, images, strict=True):
        other = first.setdefault(image, file.name)
        if other != file.name:
            raise UserError(
                f"'{other}.xml' and '{file.name}.xml' in '{source.annotations}' are both of the image '{image}': put "
                "their objects into one file"
            )


def _log_origin(source: Source, files: Sequence[_Named]) -> None:
    """Say how corners were taken."""
    count = sum(file.content.from_one for file in files)
    if count in (0, len(files)):
        how = "from 1, as in the VOC challenge" if count else "from 0, as no file is of the VOC challenge"
        logger.info("'%s': corners of boxes count %s", source.annotations, how)
    else:
        logger.warning(
            "'%s': corners of boxes count from 1 in %d files, by <database> or <folder> of the VOC challenge, and from "
            "0 in %d",
            source.annotations,
            count,
            len(files) - count,
        )
