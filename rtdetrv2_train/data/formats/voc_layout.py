"""Finding the parts of a set in Pascal VOC's format, and the XML files of each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rtdetrv2_train.data.formats.folder_state import files_below, names_in
from rtdetrv2_train.data.formats.image_files import subfolders
from rtdetrv2_train.data.formats.source import Part, Source, part_of
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.errors import UserError

NAME = "voc"
XML = (".xml",)
_XML_FOLDERS = ("annotations", "annotation", "xml", "xmls", "labels")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
_BEGINNING = 2**10  # bytes in which the root of a file begins


def find(path: Path) -> list[Source]:
    """The parts of a set in Pascal VOC's format; see `Format`.

    Raises:
        UserError: if several sets lie there, or several folders are the same part.
    """
    if not path.is_dir():
        return []
    if sources := _of_folder(path):
        return sources
    sets = [
        (inner, found)
        for home in (path, path / "VOCdevkit")
        for inner in subfolders(home)
        if _inner(inner, _XML_FOLDERS) and (found := _of_folder(inner))
    ]
    if len(sets) > 1:
        names = " and ".join(f"'{inner.name}'" for inner, _ in sets[:3])
        raise UserError(f"'{path}' holds several sets, {names}: give the path of one of them")
    return sets[0][1] if sets else []


def _of_folder(folder: Path) -> list[Source]:
    """The parts of one set: with a folder of annotations, or XML files beside the images, or a folder for each part."""
    labels = next(filter(_has_voc, _inner(folder, _XML_FOLDERS)), None)
    if labels is not None:
        return _beside_images(folder, labels, next(iter(_inner(folder, _IMAGE_FOLDERS)), folder))
    if names_in(folder, XML):
        return [Source(NAME, folder, _images_of_bare(folder))] if _has_voc(folder, deep=False) else []
    sources: dict[Part, Source] = {}
    for inner in subfolders(folder):
        part = part_of(inner.name)
        for source in _of_folder(inner) if part else ():
            if part in sources:
                raise UserError(
                    f"'{sources[part].annotations}' and '{source.annotations}' are both the part '{part}' of "
                    f"'{folder}': move their files into one folder, or give the path of one"
                )
            sources[part] = Source(NAME, source.annotations, source.images, part)
    return list(sources.values())


def _beside_images(folder: Path, labels: Path, images: Path) -> list[Source]:
    """The parts of a set with a folder of annotations: divided by lists, by folders in it, or not at all."""
    if lists := _lists(folder):
        return [Source(NAME, labels, images, part, file) for part, file in lists.items()]
    parts = [inner for inner in subfolders(labels) if part_of(inner.name) and _has_voc(inner)]
    if not parts:
        return [Source(NAME, labels, images)]
    return [
        Source(NAME, inner, images / inner.name if (images / inner.name).is_dir() else images, part_of(inner.name))
        for inner in parts
    ]


def _images_of_bare(folder: Path) -> Path:
    """The images of a folder of XML files: there, or beside it where it is a folder of annotations only."""
    if folder.name.lower() not in _XML_FOLDERS or names_in(folder, IMAGE_SUFFIXES):
        return folder
    return next(iter(_inner(folder.absolute().parent, _IMAGE_FOLDERS)), folder)


def _lists(folder: Path) -> dict[Part, Path]:
    """The list of each part; those of single classes, such as ``aeroplane_train.txt``, are none."""
    for place in (folder / "ImageSets" / "Main", folder / "ImageSets"):
        found: dict[Part, Path] = {}
        for name in sorted(names_in(place, (".txt",)), key=lambda name: (name.startswith("trainval"), name)):
            part = part_of(name) if re.fullmatch(r"[A-Za-z]+\d*\.txt", name) else ""
            if part and (place / name).stat().st_size:
                found.setdefault(part, place / name)
        if found:
            return found
    return {}


def _inner(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in a folder that have one of some names, in upper or lower case; in the order of the names."""
    found = [inner for inner in subfolders(folder) if inner.name.lower() in names]
    return sorted(found, key=lambda inner: names.index(inner.name.lower()))


def _has_voc(folder: Path, deep: bool = True) -> bool:
    """Whether the first XML file of a folder begins as one of this format."""
    for here, names in files_below(folder, XML):
        if names:
            with (here / min(names)).open("rb") as file:
                return re.search(rb"<annotation[\s>]", file.read(_BEGINNING)) is not None
        if not deep:
            break
    return False


def names_below(folder: Path) -> list[str]:
    """The names of all XML files of a folder, without suffix and seen from there, in order."""
    found = []
    for here, names in files_below(folder, XML):
        before = "" if here == folder else f"{here.relative_to(folder).as_posix()}/"
        found += [before + name[: -len(".xml")] for name in names if name.endswith(".xml")]
    return sorted(found)


def _listed(file: Path, labels: Path) -> list[str]:
    """The names of the XML files that a list names, which may have a folder, a suffix or a number with them."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list '{file}' cannot be read: {error}") from error
    present = set(names_below(labels))
    found: dict[str, None] = {}
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        words = (line.strip(), line.split()[0])
        name = next((name for name in (*words, *(_bare(word) for word in words)) if name in present), None)
        if name is None:
            raise UserError(
                f"'{file}', line {position}: there is no '{labels / words[0]}.xml': put it there, or take the line out"
            )
        found[name] = None
    return list(found)


def _bare(word: str) -> str:
    return PurePosixPath(word.replace("\\", "/")).stem


def names_of(source: Source) -> list[str]:
    """The XML files of a part, without suffix and seen from the folder of annotations, in order.

    Raises:
        UserError: if its list cannot be read, or names a file that is not there.
    """
    return _listed(source.listing, source.annotations) if source.listing else names_below(source.annotations)


def places_of_set(source: Source) -> list[Path]:
    """The folders of annotations of all parts of the set."""
    own = source.annotations
    for folder in (own, own.parent):
        if not source.listing and part_of(folder.name):
            with contextlib.suppress(UserError):  # other folders that only look like parts
                places = [other.annotations for other in _of_folder(folder.parent)]
                if own in places:
                    return places
    return [own]
