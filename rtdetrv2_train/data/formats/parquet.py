"""Hugging Face's parquet files with images, boxes and labels inside; needs pyarrow."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.box_forms import form_of
from rtdetrv2_train.data.formats.coco_entries import brief, flag, number, whole
from rtdetrv2_train.data.formats.image_files import files_in, subfolders
from rtdetrv2_train.data.formats.parquet_columns import Columns, class_names, columns_of
from rtdetrv2_train.data.formats.parquet_images import are_unpacked, place_for_images, unpacked
from rtdetrv2_train.data.formats.rows import Rows, numbered
from rtdetrv2_train.data.formats.source import Format, Part, Source, part_of, state_of_files
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.data.images.sizes import image_sizes
from rtdetrv2_train.data.table_builder import TableBuilder
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_MAGIC = b"PAR1"
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(?:-[0-9a-f]+)?|\d{4,5}")
_FOLDERS_TRIED = 50
_IMAGES_AT_ONCE, _ROWS_AT_ONCE = 16, 1000
_ONLY_CLASS = "object"


def _find(path: Path) -> list[Source]:
    if path.is_file():
        return [_source(path, path.parent)] if _is_parquet(path) else []
    first = subfolders(path)[:_FOLDERS_TRIED]
    second = [inner for folder in first for inner in subfolders(folder)[:_FOLDERS_TRIED]]
    found: dict[Part, dict[Path, Source]] = {}
    for folder in (path, *first, *second):
        for file in files_in(folder, ".parquet"):
            if _is_parquet(file):
                source = _source(_shards(file)[0], path)
                found.setdefault(source.part, {})[source.annotations] = source
    if found.keys() - {""}:
        found.pop("", None)
    for part, sources in found.items():
        if len(sources) > 1:
            names = ", ".join(f"'{file.relative_to(path)}'" for file in list(sources)[:4])
            raise UserError(
                f"'{path}' has {len(sources)} sets of parquet files{f' for {part}' * bool(part)}: {names}; choose with "
                f"data.{part or 'train'}.annotations="
            )
    return [source for sources in found.values() for source in sources.values()]


def _is_parquet(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _source(file: Path, root: Path) -> Source:
    words = [file.name, *reversed(file.relative_to(root).parts[:-1])]
    part: Part = next((word for word in map(part_of, words) if word), "")
    return Source("parquet", file, place_for_images(file), part)


def _shards(file: Path) -> list[Path]:
    """All files of the set that a file is one of, such as ``train-00000-of-00004.parquet``, in order."""
    own = _SHARD.fullmatch(file.stem)
    if own is None:
        return [file]
    found = []
    for other in files_in(file.parent, ".parquet"):
        match = _SHARD.fullmatch(other.stem)
        if match and match.groups() == own.groups():
            found.append(other)
    return found or [file]


def _read(source: Source, exif: Exif) -> AnnotationTable:
    files = _shards(source.annotations)
    expected = _SHARD.fullmatch(files[0].stem)
    if expected and expected.group(2) and int(expected.group(2)) > len(files):
        logger.warning("'%s': only %d of %s files are there", files[0], len(files), int(expected.group(2)))
    schema = _opened(files[0]).schema_arrow
    columns = columns_of(schema, files[0])
    names = _images(source, files)
    sizes = image_sizes(source.images, names, exif, source.may_lack_images)
    rows = _rows(files, columns)
    last = max(rows.images, default=0)
    if last > len(names):
        raise UserError(f"'{files[0]}' changed while it was read: start again")
    sizes_of_boxes = np.array(sizes, dtype=np.int64).reshape(-1, 2)[rows.images - 1]
    known = sizes_of_boxes.all(axis=1)
    form = form_of(rows.boxes[known], sizes_of_boxes[known], source.annotations)
    if form.shares:
        rows.forget_areas()  # whose unit is not told
    told = class_names(schema, columns.label, files[0]) if columns.label else None
    ids, categories = _classes(rows, told)
    builder = TableBuilder(source.annotations, source.images, categories)
    for image_id, (name, size) in enumerate(zip(names, sizes, strict=True), 1):
        builder.add_image(image_id, name, *size)
    rows.fill(builder, ids, form.in_pixels(rows.boxes, sizes_of_boxes))
    return builder.table()


def _opened(file: Path) -> Any:
    """A parquet file.

    Raises:
        UserError: if it cannot be read, or pyarrow is missing.
    """
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError(f"'{file}' needs pyarrow: pip install 'rtdetrv2-train[parquet]'") from error
    try:
        return ParquetFile(file, pre_buffer=False)
    except (ArrowInvalid, OSError) as error:
        raise UserError(f"'{file}' cannot be read as parquet ({error}): get it again") from error


def _lines(files: list[Path], names: list[str], at_once: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The rows of files, of which only some columns and few rows are in memory at a time."""
    for file in files:
        opened = _opened(file)
        if missing := [name for name in names if name not in opened.schema_arrow.names]:
            raise UserError(f"'{file}' has no column '{missing[0]}', which '{files[0]}' has: get both again")
        try:
            for group in range(opened.num_row_groups):  # all at once would stay in memory
                for batch in opened.iter_batches(at_once, [group], names):
                    yield from ((file, row) for row in batch.to_pylist())
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these
            raise UserError(f"'{file}' cannot be read as parquet ({error}): get it again") from error


def _images(source: Source, files: list[Path]) -> list[str]:
    """Names of the images, which lie unpacked afterwards."""

    def contents() -> Iterator[tuple[bytes, str]]:
        column = columns_of(_opened(files[0]).schema_arrow, files[0]).image
        for position, (file, row) in enumerate(_lines(files, [column], _IMAGES_AT_ONCE)):
            image = row[column] if isinstance(row[column], dict) else {"bytes": row[column]}
            if not image.get("bytes"):
                raise UserError(
                    f"'{file}' holds no image in row {position}, but {brief(image.get('path'))}: embed the images, as "
                    "Dataset.push_to_hub() does"
                )
            yield image["bytes"], image.get("path") or ""

    return unpacked(files, source.images, contents())


def _rows(files: list[Path], columns: Columns) -> Rows:
    """The boxes of all rows, in the form that they have in the files; images are numbered from 1."""
    rows = Rows()
    for image_id, (_, row) in enumerate(_lines(files, columns.of_labels, _ROWS_AT_ONCE), 1):
        for entry in _entries(row[columns.container] if columns.container else row, columns):
            box = entry[columns.box]
            values = [number(value) for value in box] if isinstance(box, (list, tuple)) else []
            found = [value for value in values if value is not None]
            told = entry.get(columns.label) if columns.label else _ONLY_CLASS
            label = _label(told)
            if len(values) != 4 or len(found) != 4:
                rows.add_problem(image_id, f"{columns.box} {brief(box)} is not four finite numbers")
            elif label is None:
                rows.add_problem(image_id, f"{columns.label} {brief(told)} is no label")
            else:
                crowd = bool(flag(entry.get(columns.crowd))) if columns.crowd else False
                area = number(entry.get(columns.area)) if columns.area else None
                rows.add(image_id, label, found, crowd, area)
    return rows


def _entries(objects: Any, columns: Columns) -> Iterator[dict[str, Any]]:
    """The objects of an image, which are a list of structs, or a struct of lists."""
    if isinstance(objects, dict):
        named = [name for name in (columns.box, columns.label, columns.crowd, columns.area) if name]
        lists = {name: objects[name] for name in named if isinstance(objects[name], list)}
        for position in range(len(lists.get(columns.box, ()))):
            yield {name: values[position] if position < len(values) else None for name, values in lists.items()}
    else:
        yield from objects or ()


def _label(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    found = whole(value)
    return None if found is None else str(found)


def _classes(rows: Rows, told: list[str] | None) -> tuple[dict[str, int], dict[int, str]]:
    """The category of each label, and the name of each category."""
    if told is not None:
        by_number = {str(number): number for number in range(len(told))}
        return {**by_number, **{name: number for number, name in enumerate(told)}}, dict(enumerate(told))
    if all(label.lstrip("-").isdigit() for label in rows.labels):
        ids = {label: int(label) for label in rows.labels}
    else:
        ids = numbered(sorted(rows.labels))
    return ids, {number: name for name, number in ids.items()}


def _state(source: Source) -> dict[str, Any]:
    """Of the files; unpacks the images where they are gone, so that an index has the images that it names."""
    files = _shards(source.annotations)
    if not are_unpacked(files, source.images):
        _images(source, files)
    return {**state_of_files(files), "names": [file.name for file in files]}


FORMAT = Format("parquet", "parquet", _find, _read, _state)
