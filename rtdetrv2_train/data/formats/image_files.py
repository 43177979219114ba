"""Which image files labels mean that name them only in part, and how large they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rtdetrv2_train.data.file_names import files_of, missing_names
from rtdetrv2_train.data.formats.folder_state import files_below, state_of_names, state_of_some
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.images.decode import Exif, UnreadableImageError, read_header
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES, TRAIN_WITHOUT, image_sizes
from rtdetrv2_train.errors import UserError

Size = tuple[int, int]
"""Height and width in pixels."""


def images_below(folder: Path) -> Iterator[str]:
    """Names of all images in a folder and below it, relative to it; hidden files and folders are left out."""
    for here, names in files_below(folder, IMAGE_SUFFIXES):
        relative = here.relative_to(folder)
        for name in sorted(names):
            yield (relative / name).as_posix()


def state_of_images(folder: Path) -> dict[str, Any]:
    """The names of all images in a folder and below it, and what some are known by, as a state for the index."""
    places = list(files_below(folder, IMAGE_SUFFIXES))
    names = {f"image_{key}": value for key, value in state_of_names(places).items()}
    return {**names, "images_looked_at": state_of_some(places)}


def has_image(folder: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(names for _, names in files_below(folder, IMAGE_SUFFIXES))


def by_stem(folder: Path) -> dict[str, str]:
    """The images in a folder and below it by their names without folder and suffix; the first of several counts."""
    found: dict[str, str] = {}
    for name in images_below(folder):
        found.setdefault(PurePosixPath(name).stem, name)
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder but for hidden ones, in order; none where it is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files right in a folder that end in this, in lower or upper case, in order; none where it is no folder.

    Hidden ones are left out.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.lower().endswith(suffix) and entry.name[0] != "."]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def check_present(source: Source, missing: Sequence[str], count: int) -> None:
    """Check that no image is missing of those whose sizes are needed; not all, where images may be missing.

    Args:
        source: what names the images.
        missing: those that are not there.
        count: how many are named.

    Raises:
        UserError: if any is missing.
    """
    if missing and not (source.may_lack_images and len(missing) < count):
        raise UserError(
            f"{len(missing)} of {count} images of '{source.annotations}' are not in '{source.images}', the first is "
            f"'{missing[0]}', and the labels give no sizes: put them there, name their folder as data.train.images or "
            f"data.val.images{f', or {TRAIN_WITHOUT}' * (len(missing) < count)}"
        )


def sizes_of(source: Source, names: Sequence[str], given: Sequence[Size | None], exif: Exif) -> list[Size]:
    """Sizes of images that labels give for some; of upright images where EXIF is applied.

    Args:
        source: what names the images.
        names: of the images.
        given: what the labels say, None where they say nothing.
        exif: see `Reading`; ``apply`` opens all images.

    Returns:
        Height and width in pixels of each image; `UNREADABLE` of those that are left out.

    Raises:
        UserError: if an image is missing or unreadable that the labels give no size for, unless it is left out.
    """
    folder = source.images
    opened = exif == "apply" or any(size is None for size in given)
    files = files_of(names, folder) if opened else {}
    unknown = [files.get(name, name) for name, size in zip(names, given, strict=True) if size is None]
    check_present(source, missing_names(unknown, folder), len(names))
    measured = iter(image_sizes(folder, unknown, exif, source.may_lack_images) if unknown else ())

    def size_of(name: str, size: Size | None) -> Size:
        if size is None:
            return next(measured)
        return _upright(folder / files.get(name, name), size) if exif == "apply" else size

    return [size_of(name, size) for name, size in zip(names, given, strict=True)]


def _upright(path: Path, given: Size) -> Size:
    """The size of the upright image, or the one given where the file cannot be read or is of another image."""
    try:
        upright = read_header(path).upright_size
    except UnreadableImageError:
        return given
    return upright if sorted(upright) == sorted(given) else given
