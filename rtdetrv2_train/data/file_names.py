"""Which file of the image folder an annotation file means, where the name in it is not quite that of the file.

Names may have another prefix, backslashes, a drive, another case or another Unicode form, or be URLs. Only files within
the folder are ever found.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import numpy as np
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.folder_state import files_below
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_Parts = tuple[str, ...]
_BESIDE_PILLOW = (".heic", ".heif", ".npy")  # what is read without Pillow knowing it from the start
_AROUND_PATH = re.compile(r"^\w+://[^/]*|[?#].*$")  # scheme and host of a URL, and what follows its path


def with_names_of_files(annotations: AnnotationTable, may_lack: bool, can_skip: bool = True) -> AnnotationTable:
    """The annotations with the names of the files that they mean, so that missing ones are found before training.

    Args:
        annotations: with names as the annotation file has them.
        may_lack: whether some images, but not all, may be missing.
        can_skip: whether a setting lets images be missing, for the message.

    Raises:
        UserError: if images are missing.
    """
    file, folder, names = annotations.annotation_file, annotations.image_folder, annotations.file_names.tolist()
    absent = missing_names(names, folder)
    if not absent:
        return annotations
    finder = FileFinder(folder)
    if files := finder.found(absent, names):
        name, path = next(iter(files.items()))
        logger.info("'%s': %d names are not quite those of files: '%s' is '%s'", file, len(files), name, path)
        annotations = replace(annotations, file_names=np.array([files.get(name, name) for name in names]))
        absent = [name for name in absent if name not in files]
        if not absent:
            return annotations
    message = f"{len(absent)} of {len(names)} images of '{file}' are not in '{folder}', the first is '{absent[0]}'"
    if may_lack and len(absent) < len(names):
        logger.warning("%s; they are skipped", message)
        return annotations
    if fitting := finder.fitting(absent[0]):
        cause = f"it may be {' or '.join(map(repr, fitting[:2]))}"
    else:
        cause = f"that folder holds '{finder.images[0]}'" if finder.images else "that folder holds no image"
    way_out = "put them there, or leave missing images out with data.on_bad_image=skip"
    if not can_skip:
        way_out = "put them there, or take them out of the labels"
    elif len(absent) == len(names):
        way_out = "correct data.train.images and data.val.images, or the 'file_name's"
    raise UserError(f"{message}; {cause}: {way_out}")


def missing_names(names: Iterable[str], folder: Path) -> list[str]:
    """The names that no file of the folder has, found by listing folders instead of opening files."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, _, base = name.rpartition("/")
        if parent not in present:
            try:
                present[parent] = set(os.listdir(folder / parent))  # noqa: PTH208 (a million paths would take seconds)
            except OSError:
                present[parent] = set()
        if base not in present[parent]:
            missing.append(name)
    return missing


def files_of(names: Sequence[str], folder: Path) -> dict[str, str]:
    """The files of names that no file has, where it is plain which."""
    missing = missing_names(names, folder)
    return FileFinder(folder).found(missing, names) if missing else {}


class FileFinder:
    """The files of a folder, to be found by names that differ from theirs; not hidden ones, such as an index's.

    Args:
        folder: searched with all below it, linked folders too.
    """

    def __init__(self, folder: Path) -> None:
        self.images: list[str] = []
        self._by_base: dict[str, list[tuple[_Parts, str]]] = defaultdict(list)
        for here, names in files_below(folder, (*Image.registered_extensions(), *_BESIDE_PILLOW)):
            inner = here.relative_to(folder)
            for name in sorted(names):
                path = (inner / name).as_posix()
                self.images.append(path)
                parts = _folded(path)
                for key in (parts, _without_suffix(parts)):
                    self._by_base[key[-1]].append((key, path))

    def fitting(self, name: str) -> list[str]:
        """The files that a name may mean: one's path is the end of the other's, and no other file shares more of it."""
        parts = _folded(name)
        for key in (parts, _without_suffix(parts)):
            shared = {
                path: min(len(own), len(key)) for own, path in self._by_base.get(key[-1], ()) if _is_end(own, key)
            }
            if shared:
                most = max(shared.values())
                return [path for path, count in shared.items() if count == most]
        return []

    def found(self, missing: Sequence[str], names: Iterable[str]) -> dict[str, str]:
        """The files of missing names where it is plain which: one file fits one name, and has no other.

        Args:
            missing: names that no file has.
            names: all names.
        """
        fitting = {name: self.fitting(name) for name in dict.fromkeys(missing)}
        claims = Counter(path for paths in fitting.values() for path in paths)
        claims.update({os.path.normpath(name) for name in names} - fitting.keys())
        return {name: paths[0] for name, paths in fitting.items() if len(paths) == 1 and claims[paths[0]] == 1}


def _folded(name: str) -> _Parts:
    """The parts of a name without what systems and tools write differently."""
    path = PureWindowsPath(unquote(_AROUND_PATH.sub("", name) if "://" in name else name))
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in path.parts[bool(path.anchor) :]) or ("",)


def _without_suffix(parts: _Parts) -> _Parts:
    return (*parts[:-1], PurePosixPath(parts[-1]).stem) if _is_image(parts[-1]) else parts


def _is_image(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _BESIDE_PILLOW or suffix in Image.registered_extensions()


def _is_end(one: _Parts, other: _Parts) -> bool:
    shared = min(len(one), len(other))
    return one[-shared:] == other[-shared:]
