"""Which images belong to a part of a YOLO set, and where their labels lie."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from rtdetrv2_train.data.formats.folder_state import EXACT, files_below, folders_below
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.formats.yolo_yaml import YAML_SUFFIXES, read_data_yaml
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES
from rtdetrv2_train.errors import UserError

_LOOKED_AT, _BEGINNING = 100, 2**15  # lines and characters of a list, to see where its images lie
ImageFolders = dict[Path, list[str]]


def images_of(source: Source) -> ImageFolders:
    """The images of a part: names of files by folder. Order is that of the system, or of the list.

    Raises:
        UserError: if a list or a folder cannot be read, or the images of a list are nowhere.
    """
    places, bases = _places(source)
    found: ImageFolders = {}
    for place in places:
        here = _listed(place, bases) if place.is_file() else dict(files_below(place, IMAGE_SUFFIXES))
        for folder, names in here.items():
            if names:
                found[folder] = list(dict.fromkeys([*found[folder], *names])) if folder in found else names
    return found


def image_folders_of(source: Source, index: Path) -> dict[Path, Sequence[str] | None]:
    """The folders of the images of a part; with names where this is fast and no file lists them.

    Args:
        source: the part.
        index: the folder that the index is written to, whose time says nothing.

    Raises:
        UserError: as `images_of`.
    """
    places, bases = _places(source)
    found: dict[Path, Sequence[str] | None] = {}
    for place in places:
        if place.is_file():
            found.update(dict.fromkeys(_folders_listed(place, bases), ()))
        else:
            found.update(folders_below(place, IMAGE_SUFFIXES, EXACT, index))
    return found


def common_folder(places: Iterable[Path], bases: Sequence[Path]) -> Path:
    """The folder that holds all images of some folders and lists.

    Args:
        places: folders, and files that list images.
        bases: folders that paths in a list may be relative to, besides its own.

    Raises:
        UserError: if a list cannot be read, or its images are nowhere.
    """
    folders = [folder for place in places for folder in (_folders_listed(place, bases) if place.is_file() else [place])]
    return Path(os.path.commonpath([folder.absolute() for folder in folders]))


def labels_of(source: Source, folder: Path) -> Path:
    """The folder with the labels of the images of a folder.

    Where the set has a folder of labels, it is the one of the same name in there. Else the last ``/images/`` of the
    path becomes ``/labels/``; where there is no such folder, labels lie beside their images.
    """
    if source.annotations.is_dir() and folder.is_relative_to(source.images):
        return source.annotations / folder.relative_to(source.images)
    for path in (folder.absolute(), folder.resolve()):
        before, found, after = f"{path.as_posix()}/".rpartition("/images/")
        if found and (labels := Path(f"{before}/labels/{after}")).is_dir():
            return labels
    return folder


def _places(source: Source) -> tuple[list[Path], list[Path]]:
    """The folders and lists of the images of a part, and the folders that a list may be relative to."""
    if source.annotations.suffix.lower() in YAML_SUFFIXES:
        described = read_data_yaml(source.annotations)
        if source.listing is None and source.part in described.parts:
            return described.places(source.part), described.bases()
        return [source.listing or source.images], described.bases()
    return [source.listing or source.images], [source.annotations.parent, source.images]


def _listed(file: Path, bases: Sequence[Path]) -> ImageFolders:
    """The images that a text file lists, one a line."""
    text = _text(file)
    folders = _folders_in(text, file, bases)
    found: ImageFolders = {}
    for line in dict.fromkeys(filter(None, map(str.strip, text.split("\n")))):
        parent, slash, name = line.rpartition("/")
        found.setdefault(folders[parent + slash], []).append(name)
    return found


def _folders_listed(file: Path, bases: Sequence[Path]) -> list[Path]:
    """The folders of the images that a text file lists."""
    try:
        state = file.stat()
    except OSError as error:
        raise UserError(f"the list of images '{file}' cannot be read: {error.strerror}") from error
    return list(_folders_of_state(file, tuple(bases), state.st_size, state.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _folders_of_state(file: Path, bases: tuple[Path, ...], size: int, modified: int) -> tuple[Path, ...]:
    """As `_folders_listed`, for a file of this size and time: it is asked for when a set is found, and once more."""
    return tuple(dict.fromkeys(_folders_in(_text(file), file, bases).values()))


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape").replace("\\", "/")
    except OSError as error:
        raise UserError(f"the list of images '{file}' cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"the list of images '{file}' is empty: give one path a line")
    return text


def _folders_in(text: str, file: Path, bases: Sequence[Path]) -> dict[str, Path]:
    """The folder of the images of each line, by what stands in the line before the name."""
    lines = [line.strip() for line in text[:_BEGINNING].split("\n") if line.strip()][:_LOOKED_AT]
    base, left_out = _start_of(lines, list(dict.fromkeys([file.parent, *bases])), file)
    parents = dict.fromkeys(re.findall(r"^[^\S\n]*(?=\S)((?:.*/)?)", text, re.MULTILINE))
    return {
        parent: Path(os.path.normpath(base.joinpath(*PurePosixPath(parent).parts[left_out:]))) for parent in parents
    }


def _start_of(lines: Sequence[str], bases: Sequence[Path], file: Path) -> tuple[Path, int]:
    """The folder that the paths of a list begin in, and how many of their first parts have to be left out.

    Lists are written for the folder that a program was started in, or for another machine.
    """
    for line in lines[:_LOOKED_AT]:
        parts = PurePosixPath(line).parts
        for left_out in range(len(parts)):
            for base in bases:
                if base.joinpath(*parts[left_out:]).is_file():
                    return base, left_out
    looked = " and ".join(f"'{base}'" for base in bases)
    raise UserError(
        f"'{file}', line 1: '{lines[0]}' is no image; looked for it in {looked}: put the images there, or correct the "
        "paths"
    )
