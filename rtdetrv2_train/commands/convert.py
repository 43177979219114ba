"""``rtdetrv2 convert``: a data set in another format."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import with_names_of_files
from rtdetrv2_train.data.formats.finding import found_sources
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.formats.writers import WRITERS
from rtdetrv2_train.data.index import load_source
from rtdetrv2_train.data.joining import joined, united
from rtdetrv2_train.errors import UserError, nearest


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Convert as configured."""
    convert(config)


def convert(config: DictConfig) -> Path:
    """Write all parts of a data set in another format, in a new folder that appears complete or not at all.

    Args:
        config: as composed from ``conf/convert.yaml``.

    Returns:
        the folder.

    Raises:
        UserError: if the set cannot be understood, or the folder is not empty.
    """
    if config.source is None or config.output is None:
        raise UserError("nothing to convert: give source=, a data set, and output=, a new folder")
    if config.format not in WRITERS:
        raise UserError(
            f"format is '{config.format}': {nearest(str(config.format), WRITERS)}use one of {', '.join(WRITERS)}"
        )
    output = Path(config.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"'{output}' is there already: give output= a new folder")
    parts = _parts(found_sources(Path(config.source), config.source_format))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent)
    except OSError as error:
        raise UserError(f"'{output}' cannot be written: {error.strerror}; give another output=") from error
    with beside as unfinished:
        complete = Path(unfinished) / output.name
        complete.mkdir()
        WRITERS[config.format](parts, complete)
        complete.rename(output)
    for part, table in parts.items():
        print_line(f"{part:16} {len(table)} images, {len(table.raw_boxes)} boxes of {table.num_classes} classes")
    print_line(f"{config.format:16} {output}")
    return output


def _parts(sources: Sequence[Source]) -> dict[str, AnnotationTable]:
    """The table of each part, with the classes of all."""
    tables: dict[str, AnnotationTable] = {}
    for part in dict.fromkeys(source.part for source in sources):
        read = [load_source(source) for source in sources if source.part == part]
        tables[part or "train"] = joined([with_names_of_files(table, may_lack=False, can_skip=False) for table in read])
    classes = united([table.classes for table in tables.values()])
    return {part: table.relabelled(classes) for part, table in tables.items()}
