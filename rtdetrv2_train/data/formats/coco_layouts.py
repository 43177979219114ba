"""Where COCO files and their images lie: COCO 2017's layout, Roboflow's, CVAT's, Label Studio's, LVIS, Objects365."""

from __future__ import annotations

import functools
import json
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco import read_coco_file
from rtdetrv2_train.data.formats.image_files import files_in
from rtdetrv2_train.data.formats.source import Format, Part, Source, one_for_each_part, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif

_BLOCK = 2**16  # bytes at the beginning of a file that tell what it is
_LISTS = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
_NAME = re.compile(rb'"(?:file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')
_NAMES_TRIED = 20
_FOLDERS_OF_FILES = ("", "annotations", "Annotations")
_FOLDERS_OF_IMAGES = ("images", "JPEGImages", "img", "imgs", "data")
_OTHER_TASKS = ("captions", "panoptic", "stuff", "image_info", "person_keypoints", "densepose")


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return [_source(path, path.parent)] if is_coco_file(path) else []
    files = [file for file in _candidates(path) if is_coco_file(file)]
    usual = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
    return one_for_each_part(path, (_source(file, path) for file in usual or files), "COCO files")


def is_coco_file(path: Path) -> bool:
    """Whether a file begins like a COCO file, and has categories and images anywhere.

    Those of captions have no categories, and the ``notes.json`` that Label Studio puts beside a YOLO set no images.
    """
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(_BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip()
            if not head.startswith(b"{") or not _LISTS.search(head):
                return False
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.rfind(b'"categories"') > 0 and (b'"images"' in head or content.rfind(b'"images"') > 0)
    except OSError:
        return False


def _candidates(root: Path) -> Iterator[Path]:
    """JSON files where one would put annotations: in the folder, in that for annotations, and in those of the parts."""
    folders = [root / name for name in _FOLDERS_OF_FILES]
    folders += sorted(folder for folder in _subfolders(root) if part_of(folder.name))
    seen = set()
    for folder in folders:
        if folder.is_dir() and (key := folder.resolve()) not in seen:
            seen.add(key)
            yield from files_in(folder, ".json")


def _subfolders(root: Path) -> list[Path]:
    with os.scandir(root) as entries:  # which tells folders without a look at each of a million images
        return [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _source(file: Path, root: Path) -> Source:
    part = part_of(file.name) or (part_of(file.parent.name) if file.parent != root else "")
    return Source("coco", file, _image_folder(file, root, part), part)


def _image_folder(file: Path, root: Path, part: Part) -> Path:
    """The folder that holds the images that a file names: the first in which one of its first names is found."""
    names = [name for name in _first_names(file) if ".." not in name]
    bases = [root, *([file.parent] if file.parent != root else [])]
    if file.parent != root and file.parent.name.lower() == "annotations":
        bases = [root, file.parent.parent]
    elif file.parent == root and root.name.lower() == "annotations":
        bases = [root.parent, root]
    folders = [base / name for base in bases for name in _FOLDERS_OF_IMAGES]
    of_parts = [folder for base in [*bases, *folders] if base.is_dir() for folder in _of_part(base, file, part)]
    beside = [file.parent] if file.parent != root else []
    candidates = [*beside, *of_parts, *folders, *bases]
    for exact in (True, False):
        for folder in candidates:
            tried = names if exact else [PurePosixPath(name.replace("\\", "/")).name for name in names]
            if any(name and _is_file(folder / name) for name in tried):
                return folder
    return next((folder for folder in [*of_parts, *folders] if folder.is_dir()), root)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _of_part(base: Path, file: Path, part: Part) -> list[Path]:
    """Subfolders for a part: first those whose names the file's name ends with, such as ``train2017``."""
    stem = file.stem.lower()
    named = [folder for folder in _subfolders(base) if stem.endswith(folder.name.lower())]
    return sorted(named) + sorted(f for f in _subfolders(base) if part and part_of(f.name) == part and f not in named)


def _first_names(file: Path) -> tuple[str, ...]:
    """Some names of images in a file, which is not read as a whole."""
    state = file.stat()
    return _first_names_of_state(file, state.st_size, state.st_mtime_ns) if state.st_size else ()


@functools.lru_cache(maxsize=8)
def _first_names_of_state(file: Path, size: int, modified: int) -> tuple[str, ...]:
    """As `_first_names`, for a file of this size and time: it is asked for when a set is found, and once more."""
    names: list[str] = []
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in _NAME.finditer(content):
            try:
                name: Any = json.loads(found.group(1))
            except ValueError:
                continue
            name = PureWindowsPath(name).as_posix() if "\\" in name else name
            names.append(re.sub(r"^\w+://[^/]*/", "", name).lstrip("/"))
            if len(names) == _NAMES_TRIED:
                break
    return tuple(names)


def _read(source: Source, exif: Exif) -> AnnotationTable:
    return read_coco_file(
        source.annotations, source.images, upright=exif == "apply", may_lack_images=source.may_lack_images
    )


def _state(source: Source) -> dict[str, Any]:
    """Of the file; and which of its first names are those of files, a bit each: images may have two names."""
    names = enumerate(_first_names(source.annotations))
    found = sum(_is_file(source.images / name) << bit for bit, name in names if ".." not in name)
    return {**state_of_files([source.annotations]), "images_found": found}


FORMAT = Format("coco", "COCO", _find, _read, _state)
