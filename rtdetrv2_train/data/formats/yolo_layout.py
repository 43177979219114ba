"""Finding the parts of a YOLO set, with or without a ``data.yaml``.

Without one: Darknet's ``obj.data``, folders of images and labels, or labels beside their images. Names of the classes
are then one a line in a text file.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rtdetrv2_train.data.formats.folder_state import files_below, names_in
from rtdetrv2_train.data.formats.source import Part, Source, part_of
from rtdetrv2_train.data.formats.yolo_images import common_folder
from rtdetrv2_train.data.formats.yolo_yaml import (
    YAML_SUFFIXES,
    DataYaml,
    data_yaml_in,
    is_data_yaml,
    read_data_yaml,
)
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

NAME = "yolo"
CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names")
_DARKNET_KEYS = {"train": "train", "valid": "val", "test": "test"}
_LOOKED_AT = 20  # label files, to see whether they are YOLO's


def find(path: Path) -> list[Source]:
    """The parts of a YOLO set; see `Format`.

    Raises:
        UserError: if a ``data.yaml`` or ``obj.data`` leads nowhere, or it is not clear what is meant.
    """
    if path.is_file():
        if path.suffix.lower() in YAML_SUFFIXES:
            return _of_yaml(read_data_yaml(path)) if is_data_yaml(path) else []
        return _of_darknet(path) if path.suffix.lower() == ".data" else []
    if not path.is_dir():
        return []
    if files := data_yaml_in(path):
        if len(files) > 1:
            logger.warning(
                "'%s' holds %s: the first is taken; name another one by its path",
                path,
                ", ".join(f"'{file.name}'" for file in files[:5]),
            )
        return _of_yaml(read_data_yaml(files[0]))
    for file in sorted(path.glob("*.data")):
        if found := _of_darknet(file):
            return found
    return _of_folders(path)


def lacks_names(source: Source) -> bool:
    """Whether nothing tells the names of the classes of a YOLO set."""
    return source.format == NAME and source.classes is None and source.annotations.suffix.lower() not in YAML_SUFFIXES


def names_wanted(source: Source) -> str:
    """What to say where nothing tells the names of the classes."""
    return (
        f"the names of the classes of '{source.annotations}' are nowhere: write them into "
        f"'{source.annotations.parent / CLASS_FILES[0]}', one a line, or write a data.yaml"
    )


def _of_yaml(described: DataYaml) -> list[Source]:
    sources = []
    for part in described.parts:
        try:
            places = described.places(part)
        except UserError as error:
            if part != "test" or len(described.parts) == 1:
                raise
            logger.info("%s; there is no test part", error)  # Roboflow names one whether there is one or not
            continue
        images = common_folder(places, described.bases())
        listing = places[0] if len(places) == 1 else None
        sources.append(Source(NAME, described.path, images, part, listing))
    return sources


def _of_darknet(file: Path) -> list[Source]:
    """The parts that Darknet's ``obj.data`` names; empty where it is something else."""
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()[:100]
    except OSError:
        return []
    values = {key.strip(): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}
    if "names" not in values or not values.keys() & _DARKNET_KEYS.keys():
        return []
    classes = _file_of_darknet(file, "names", values["names"])
    sources = []
    for key, part in _DARKNET_KEYS.items():
        if values.get(key):
            listing = _file_of_darknet(file, key, values[key])
            if not listing.stat().st_size:
                continue
            images = common_folder([listing], [file.parent])
            sources.append(Source(NAME, file, images, part_of(part), listing, classes))
    return sources


def _file_of_darknet(file: Path, key: str, written: str) -> Path:
    """A file that is named as it was seen from where Darknet was started."""
    parts = Path(written.replace("\\", "/")).parts
    for left_out in range(len(parts)):
        candidate = file.parent.joinpath(*parts[left_out:])
        if candidate.is_file():
            return candidate
    raise UserError(
        f"'{file}': '{key}' is '{written}', which is nowhere; looked for it in '{file.parent}': correct '{key}'"
    )


def _of_folders(folder: Path) -> list[Source]:
    """The parts of folders without a file that describes them."""
    sources = [*_in_one_folder(folder, [folder]), *_in_folders_of_parts(folder)] or list(_of_pair(folder))
    first: dict[Part, Source] = {}
    for source in sources:
        other = first.setdefault(source.part, source)
        if other is not source:
            raise UserError(
                f"'{other.images}' and '{source.images}' are both the part '{source.part}' of '{folder}': write a "
                "data.yaml that lists them both, or give the path of one"
            )
    return sources


def _in_folders_of_parts(folder: Path) -> Iterator[Source]:
    """``train/images`` with ``train/labels``, or ``train`` with labels beside the images, and so on."""
    for inner in _folders_in(folder):
        if part := part_of(inner.name):
            for source in _in_one_folder(inner, [inner, folder]):
                yield Source(NAME, source.annotations, source.images, part, source.listing, source.classes)


def _in_one_folder(folder: Path, homes: Sequence[Path]) -> Iterator[Source]:
    """``images`` with ``labels``, divided by folders or by lists or not at all; or labels beside the images.

    Args:
        folder: where to look.
        homes: folders that may hold the names of the classes.
    """
    images, labels = folder / "images", folder / "labels"
    if images.is_dir() and labels.is_dir():
        divided = [inner for inner in _folders_in(images) if part_of(inner.name) and (labels / inner.name).is_dir()]
        classes = _class_file([*homes, labels, *(labels / inner.name for inner in divided), images])
        if classes is None and homes == [folder] and part_of(folder.name):  # a part of a set, given by itself
            classes = _described_above([folder.absolute().parent]) or _class_file([folder.absolute().parent])
        if not _has_rows(labels):
            return
        for inner in divided:
            yield Source(NAME, labels / inner.name, inner, part_of(inner.name), None, classes)
        if not divided:
            yield from _by_lists(folder, labels, images, classes)
    elif (classes := _class_file(homes)) and _has_rows(folder, deep=False):
        yield from _by_lists(folder, folder, folder, classes)


def _of_pair(folder: Path) -> Iterator[Source]:
    """A folder of labels or of images whose counterpart has the same path, with ``images`` instead of ``labels``."""
    for own, other in (("labels", "images"), ("images", "labels")):
        before, found, after = f"{folder.absolute().as_posix()}/".rpartition(f"/{own}/")
        counterpart = Path(f"{before}/{other}/{after}")
        if not found or not counterpart.is_dir():
            continue
        labels, images = (folder, counterpart) if own == "labels" else (counterpart, folder)
        if _has_rows(labels):
            homes = [labels, Path(before), Path(before) / "labels", Path(before).parent]
            yield Source(NAME, labels, images, "", None, _described_above(homes) or _class_file(homes))
            return


def _described_above(homes: Sequence[Path]) -> Path | None:
    """The first ``data.yaml`` of some folders, which names the classes."""
    return next((file for home in homes for file in data_yaml_in(home)), None)


def _by_lists(folder: Path, labels: Path, images: Path, classes: Path | None) -> Iterator[Source]:
    """The parts that lists of images such as ``train.txt`` make; one part without a name where there is none."""
    lists = [
        folder / name
        for name in ("train.txt", "trainval.txt", "val.txt", "valid.txt", "test.txt")
        if (folder / name).is_file() and (folder / name).stat().st_size
    ]
    if any(file.name == "train.txt" for file in lists):
        lists = [file for file in lists if file.name != "trainval.txt"]
    for file in lists:
        yield Source(NAME, labels, images, part_of(file.name), file, classes)
    if not lists:
        yield Source(NAME, labels, images, "", None, classes)


def _class_file(folders: Sequence[Path]) -> Path | None:
    return next((folder / name for folder in folders for name in CLASS_FILES if (folder / name).is_file()), None)


def _has_rows(folder: Path, deep: bool = True) -> bool:
    """Whether the first label files of a folder hold numbers; also where all of them are empty."""
    folders = files_below(folder, (".txt",)) if deep else [(folder, names_in(folder, (".txt",)))]
    labels = (inner / name for inner, names in folders for name in names if not is_no_label(name))
    found = False
    for path in islice(labels, _LOOKED_AT):
        found = True
        line = path.read_bytes()[: 2**12].split(b"\n")[0]
        if line.strip():
            return re.fullmatch(rb"(\xef\xbb\xbf)?(\s*(nan|[-+\d.eE]+))+\s*", line) is not None
    return found


def is_no_label(name: str) -> bool:
    """Whether a text file beside labels is known to be something else: names of classes, or a list of images."""
    is_list = re.fullmatch(r"[a-z]+\d*\.txt", name) is not None and bool(part_of(name))
    return is_list or name in CLASS_FILES or name.lower().startswith("readme")


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
