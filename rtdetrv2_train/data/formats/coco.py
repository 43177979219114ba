"""Reading a COCO annotation file into the annotation table, or naming what is wrong with it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import FileFinder, files_of, missing_names
from rtdetrv2_train.data.formats.coco_entries import (
    LAYOUT,
    AnnotationEntry,
    ImageEntry,
    brief,
    name_of,
    name_within,
    plain,
    unusual_annotation,
    unusual_image,
    whole,
)
from rtdetrv2_train.data.formats.repeated_images import RepeatedImages
from rtdetrv2_train.data.images.decode import UnreadableImageError, read_header
from rtdetrv2_train.data.images.sizes import TRAIN_WITHOUT, UNREADABLE
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_KEYS = ("images", "annotations", "categories")


def read_coco_file(
    annotation_file: Path,
    image_folder: Path,
    upright: bool = False,
    needed: Sequence[str] = _KEYS,
    may_lack_images: bool = False,
) -> AnnotationTable:
    """Read and check a COCO annotation file.

    Args:
        annotation_file: the JSON file.
        image_folder: where the images lie; opened only for images whose size the file does not give.
        upright: whether sizes are those of images that are turned as their EXIF says; opens all images.
        needed: lists that the file must have; without categories there are no classes.
        may_lack_images: see `Source`.

    Raises:
        UserError: if the file cannot be read or is not COCO's format; the message names the first fault.
    """
    content = _read_json(annotation_file, needed)
    builder = TableBuilder(annotation_file, image_folder, _categories(content["categories"], annotation_file))
    repeated = _add_images(builder, content["images"], upright, may_lack_images)
    _add_annotations(builder, content["annotations"], repeated)
    repeated.warn()
    return builder.table()


def _read_json(annotation_file: Path, needed: Sequence[str]) -> dict[str, list[Any]]:
    """The lists of the file. Their entries are still JSON, or plain objects where the file is not strictly JSON."""
    try:
        text = annotation_file.read_bytes()
    except OSError as error:
        raise UserError(f"the annotation file '{annotation_file}' cannot be read: {error.strerror}") from error
    try:
        content: Any = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Python's own parser knows NaN, which some tools write, and says where the fault is.
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"'{annotation_file}' is not JSON ({error}): {LAYOUT}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{annotation_file}' holds a {type(content).__name__}, not an object: {LAYOUT}")
    for key in _KEYS:
        if key not in content and key in needed:
            raise UserError(f"'{annotation_file}' has no '{key}': {LAYOUT}")
        content.setdefault(key, [])
        if isinstance(content[key], msgspec.Raw):
            try:
                content[key] = msgspec.json.decode(content[key], type=list[msgspec.Raw])
            except msgspec.ValidationError:
                content[key] = plain(content[key])
        if not isinstance(content[key], list):
            raise UserError(f"'{key}' of '{annotation_file}' is a {type(content[key]).__name__}, not a list: {LAYOUT}")
    for key in ("images", "categories"):
        if key in needed and not content[key]:
            raise UserError(
                f"'{key}' of '{annotation_file}' is empty: there is nothing to learn from or to evaluate on"
            )
    return content


def _add_images(builder: TableBuilder, entries: Sequence[Any], upright: bool, may_lack: bool) -> RepeatedImages:
    decode = msgspec.json.Decoder(ImageEntry).decode
    images = []
    for position, entry in enumerate(entries):
        try:
            image = decode(entry)
        except (msgspec.ValidationError, TypeError):
            image = unusual_image(plain(entry), position, builder.annotation_file)
        image.file_name = name_within(image.file_name, position, builder.annotation_file)
        images.append(image)
    _name_by_urls(images, builder)
    sized = [min(image.height or 0, image.width or 0) > 0 and not upright for image in images]
    files = {} if all(sized) else files_of([image.file_name for image in images], builder.image_folder)
    repeated = RepeatedImages(images, builder.annotation_file)
    for image, has_size in zip(images, sized, strict=True):
        if image.id in repeated.first_ids:
            builder.add_other_id(image.id, repeated.first_ids[image.id])
            continue
        height, width = image.height or 0, image.width or 0
        if not has_size:
            path = builder.image_folder / files.get(image.file_name, image.file_name)
            height, width = _size_of_file(path, height, width, upright, None if may_lack else builder.annotation_file)
        builder.add_image(image.id, image.file_name, height, width)
        for category_id in image.not_exhaustive_category_ids:  # so that no detection of it is a false positive
            builder.add_annotation(image.id, category_id, (0, 0, width, height), crowd=True)
    _warn_of_repeated(builder.repeated_images, "images", builder.annotation_file)
    return repeated


def _name_by_urls(images: Sequence[ImageEntry], builder: TableBuilder) -> None:
    """Let images have the names in their URLs where no file has their own: LVIS v0.5 beside the folders of COCO 2017.

    Where any image is found so, all that are not there are named so: they are to come from the same folders.
    """
    own = {image.file_name: image.coco_url for image in images}
    if not any(own.values()) or not (missing := missing_names(own, builder.image_folder)):
        return
    finder = FileFinder(builder.image_folder)
    by_name = finder.found(missing, own)
    urls = {name: url for name in missing if name not in by_name and (url := own[name])}
    taken = [*by_name.values(), *(own.keys() - set(missing))]
    by_url = finder.found(list(urls.values()), [*taken, *urls.values()])
    if not by_url:
        return
    for position, image in enumerate(images):
        if url := urls.get(image.file_name):
            image.file_name = by_url.get(url) or name_within(url, position, builder.annotation_file)
    name, url = next((name, url) for name, url in urls.items() if url in by_url)
    logger.info(
        "'%s': %d images are named by 'coco_url', as no file has their 'file_name': '%s' is '%s'",
        builder.annotation_file,
        len(urls),
        name,
        by_url[url],
    )


def _add_annotations(builder: TableBuilder, entries: Sequence[Any], repeated: RepeatedImages) -> None:
    decode = msgspec.json.Decoder(AnnotationEntry).decode
    for entry in entries:
        try:
            row = decode(entry)
            if not all(map(math.isfinite, row.bbox)):
                raise ValueError("not finite")
        except (msgspec.ValidationError, TypeError, ValueError):
            loose = plain(entry)
            if not isinstance(loose, dict):
                raise UserError(
                    f"'{builder.annotation_file}': an entry of 'annotations' is {loose!r:.80}, not an object: {LAYOUT}"
                ) from None
            try:
                row = unusual_annotation(loose)
            except ValueError as error:
                builder.add_problem(whole(loose.get("image_id")), whole(loose.get("id")), str(error))
                continue
        if repeated.first_ids and repeated.is_double(row):
            continue
        builder.add_annotation(row.image_id, row.category_id, row.bbox, row.id, row.area, bool(row.iscrowd))


def _size_of_file(path: Path, height: int, width: int, upright: bool, needed_by: Path | None) -> tuple[int, int]:
    """The size of an image that the annotation file gives none of, or of the upright image.

    An image that cannot be read is an error where an annotation file needs its size.
    """
    given = (height, width) if min(height, width) > 0 else None
    try:
        header = read_header(path)
    except UnreadableImageError as error:
        if given:
            return given
        if needed_by is None:
            return UNREADABLE
        raise UserError(
            f"'{needed_by}' gives no height and width for '{path}', and that file cannot be read: add the sizes, "
            f"replace the file, or {TRAIN_WITHOUT}"
        ) from error
    if given and sorted(given) != sorted(header.upright_size):  # of another image
        return given
    return header.upright_size if upright else (header.height, header.width)


def _categories(entries: Sequence[Any], annotation_file: Path) -> dict[int, str]:
    """Id and name of each category."""
    names: dict[int, str] = {}
    repeated = 0
    for position, entry in enumerate(map(plain, entries)):
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        name = name_of(entry.get("name")) if isinstance(entry, dict) else ""
        if number is None or not name:
            raise UserError(
                f"entry {position} of 'categories' of '{annotation_file}' is {brief(entry)}; a category needs a "
                f"whole number as 'id' and a 'name': {LAYOUT}"
            )
        repeated += number in names
        if names.setdefault(number, name) != name:
            raise UserError(
                f"category id {number} of '{annotation_file}' stands for both '{names[number]}' and "
                f"'{name}': give every category its own id"
            )
    _warn_of_repeated(repeated, "categories", annotation_file)
    return names


def _warn_of_repeated(count: int, key: str, annotation_file: Path) -> None:
    if count:
        logger.warning("'%s' repeats %d of its '%s'; each counts once", annotation_file, count, key)
