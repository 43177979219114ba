"""The parts of a data set as they are configured: found, read, joined, checked, split."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import with_names_of_files
from rtdetrv2_train.data.formats.finding import found_sources, source_of, with_part
from rtdetrv2_train.data.formats.source import Part, Source
from rtdetrv2_train.data.images.decode import PixelRange, Reading
from rtdetrv2_train.data.index import load_source
from rtdetrv2_train.data.inspection.conventions import other_convention
from rtdetrv2_train.data.inspection.overlap_checks import shared_files
from rtdetrv2_train.data.joining import joined
from rtdetrv2_train.data.paths import PartConfig, check_data_paths, paths_of
from rtdetrv2_train.data.split import split
from rtdetrv2_train.data.survey import measured_range, sample_of_images, warn_of_images
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import save_json

logger = logging.getLogger(__name__)

_USUAL_FRACTION = 0.1


@dataclass
class SetReader:
    """Reads the training and the validation part of a data set.

    Attributes:
        root: folder that all paths are relative to.
        train: what to train on: ``sources``, a path or a list of paths of folders or files in any known format; or
            ``images`` and ``annotations``; ``part``. A path or a list alone stands for ``sources``. Where nothing is
            given, it is found at ``root``.
        val: the same to evaluate on; with ``fraction``, or None, a share of the training part is held out, drawn by
            ``seed``.
        format: name of the only format to look for; None: all known ones.
        reading: how image files are read; without a range of values.
        measures_range: whether the range of values of deep images is measured on the first part that is read.
        may_lack_images: whether some images may be missing; or unreadable, where labels do not give sizes.
        split_file: where the split is written down, and read again; None: nowhere.
    """

    root: Path
    train: PartConfig
    val: PartConfig
    format: str | None
    reading: Reading
    measures_range: bool
    may_lack_images: bool
    split_file: Path | None
    _found: dict[Path, list[Source]] = field(default_factory=dict)

    def check(self) -> None:
        """Check that the paths that are given are there, which takes no time.

        Raises:
            UserError: if one is not; the message names it.
        """
        check_data_paths(self.root, [path for part in (self.train, self.val) for path in paths_of(part)])

    def both(self) -> tuple[AnnotationTable, AnnotationTable]:
        """The parts to train on and to evaluate on, with the classes of the former.

        Raises:
            UserError: if a file is missing or cannot be understood, or the two have no class in common.
        """
        train = self._read("train", self.train)
        _check_classes(train)
        if self._fraction is not None:
            held_out = self._split(train, self._fraction)
            return train.subset(np.flatnonzero(~held_out)), train.subset(np.flatnonzero(held_out))
        if self._sources("val", self.val) == self._sources("train", self.train):
            logger.warning("'%s' is both trained on and evaluated on: AP will be too high", train.annotation_file)
            return train, train
        val = self._read("val", self.val).relabelled(train.classes)
        _warn_of_shared(train, val)
        return train, val

    def parts(self) -> dict[str, AnnotationTable]:
        """The part to train on and, where there is one of its own, the one to evaluate on, each with its own classes.

        Raises:
            UserError: as `both` does.
        """
        train = self._read("train", self.train)
        _check_classes(train)
        if self._fraction is not None or self._sources("val", self.val) == self._sources("train", self.train):
            return {"train": train}
        val = self._read("val", self.val)
        val.relabelled(train.classes)  # refuses what training refuses
        return {"train": train, "val": val}

    def further(self) -> list[AnnotationTable]:
        """The other parts of the set at the root, such as that to test on, as far as they can be read."""
        used = [
            *self._sources("train", self.train),
            *(self._sources("val", self.val) if self._fraction is None else []),
        ]
        tables = []
        with contextlib.suppress(UserError):
            for source in self._at(self.root):
                if source not in used:
                    tables.append(with_names_of_files(load_source(source, self.reading.exif), may_lack=True))
        return tables

    def validation(self) -> AnnotationTable:
        """The part to evaluate on alone, with its own classes: the training part need not be there.

        Where it was held out, it is what the split file names. Where there is no such file, or it is about another set,
        all images count.
        """
        if self._fraction is None:
            return self._read("val", self.val)
        train = self._read("train", self.train)
        held_out = self._written_split(train)
        if held_out is None:
            if self.val is not None and not paths_of(self.train) and self._of_root("train")[0].part:
                raise self._no_such_part("val", _part_in(self.val, "val"))
            logger.info("'%s': no validation part is known, so all images are evaluated on", train.annotation_file)
            return train
        return train.subset(np.flatnonzero(held_out))

    @property
    def _fraction(self) -> float | None:
        """The share to hold out; None where there is a validation part."""
        if self.val is None:
            return _USUAL_FRACTION
        given = self.val.get("fraction") if isinstance(self.val, Mapping) else None
        if given is not None:
            return float(given)
        if paths_of(self.val):
            return None
        try:
            found = self._of_root(_part_in(self.val, "val"))
        except UserError:
            if not paths_of(self.train):
                raise
            return _USUAL_FRACTION  # the root is only where the sets to train on lie
        return None if found else _USUAL_FRACTION

    def _read(self, role: Part, config: PartConfig) -> AnnotationTable:
        sources = self._sources(role, config)
        lacking = [replace(source, may_lack_images=self.may_lack_images) for source in sources]
        read = [load_source(source, self.reading.exif) for source in lacking]
        table = joined([with_names_of_files(each, self.may_lack_images) for each in read])
        table = replace(table, reading=self.reading)
        headers = sample_of_images(table)
        warn_of_images(table, headers)
        deep = (table.path(index) for index, header in headers.items() if header.deep)
        self._set_range(table.annotation_file, measured_range(deep, self.reading.channels))
        if convention := other_convention(table):
            logger.warning("'%s': %s", table.annotation_file, convention)
        return replace(table, reading=self.reading)

    def _sources(self, role: Part, config: PartConfig) -> list[Source]:
        part = _part_in(config, role)
        if isinstance(config, Mapping) and config.get("annotations"):
            return [source_of(self.root / config["annotations"], self.root / config["images"])]
        given = config.get("sources") if isinstance(config, Mapping) else config
        if not given:
            if sources := self._of_root(part):
                return sources
            raise self._no_such_part(role, part)
        sources = []
        for entry in [given] if isinstance(given, str) else given:
            if isinstance(entry, Mapping):
                sources += self._sources(role, entry)
                continue
            found = self._at(self.root / str(entry))
            named = with_part(found, part) or (found if len(found) == 1 else [])  # one part, named by its path
            if not named:
                raise self._no_such_part(role, part, self.root / str(entry))
            sources += named
        return sources

    def _of_root(self, part: Part) -> list[Source]:
        """The sources of a part of the set at the root."""
        return with_part(self._at(self.root), part)

    def _at(self, path: Path) -> list[Source]:
        """All parts of the set at a path."""
        if path not in self._found:
            self._found[path] = found_sources(path, self.format)
        return self._found[path]

    def _no_such_part(self, role: Part, part: Part, path: Path | None = None) -> UserError:
        path = path or self.root
        there = ", ".join(repr(source.part) for source in self._found[path] if source.part) or "no parts"
        return UserError(
            f"'{path}' has no part '{part}', but {there}: give data.{role}.part, or paths as data.{role}.sources"
        )

    def _set_range(self, file: Path, measured: PixelRange | None) -> None:
        """Take the range of the first part that is read, which is the one trained on."""
        if self.measures_range:
            self.reading = replace(self.reading, pixel_range=measured)
            if measured is not None:
                logger.info("'%s': values from %g to %g become 0 to 255 in all images", file, *measured)
        elif measured is not None and self.reading.pixel_range is None:
            logger.warning(
                "'%s': values from %g to %g are read as those of 16 bits: data.pixel_range, in evaluation the model's, "
                "is null; give a range if images come out flat",
                file,
                *measured,
            )
        self.measures_range = False

    def _split(self, train: AnnotationTable, fraction: float) -> NDArray[np.bool_]:
        held_out = self._written_split(train)
        if held_out is None:
            if self.split_file is not None and self.split_file.is_file():
                logger.warning(
                    "'%s' holds few of the images that '%s' names: others are held out, some of which may have been "
                    "trained on before",
                    train.annotation_file,
                    self.split_file,
                )
            seed = self.val.get("seed", 0) if isinstance(self.val, Mapping) else 0
            held_out = split(train, fraction, seed)
            if self.split_file is not None:
                names = train.file_names[held_out].tolist()
                save_json(self.split_file, {"seed": seed, "fraction": fraction, "validation": names})
        return held_out

    def _written_split(self, train: AnnotationTable) -> NDArray[np.bool_] | None:
        """Which images the split file holds out; None where there is no such file, or it is about other images."""
        if self.split_file is None or not self.split_file.is_file():
            return None
        try:
            names = json.loads(self.split_file.read_text(encoding="utf-8"))["validation"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"'{self.split_file}' cannot be read ({error}): restore it, or delete it for a new split"
            ) from error
        held_out = np.isin(train.file_names, names)
        if held_out.sum() < len(names) / 2:
            return None
        logger.info(
            "'%s': %d images are held out, as '%s' says", train.annotation_file, held_out.sum(), self.split_file
        )
        return held_out


def _check_classes(train: AnnotationTable) -> None:
    if not train.num_classes:
        raise UserError(f"'{train.annotation_file}' has no object, and so no class: annotate some objects first")


def _warn_of_shared(train: AnnotationTable, val: AnnotationTable) -> None:
    """Warn of image files that are in both parts."""
    if shared := shared_files(train, val):
        logger.warning(
            "%d of %d images of '%s' are trained on too, such as '%s': AP will be too high",
            len(shared),
            len(val),
            val.annotation_file,
            min(str(val.file_names[place]) for place, _ in shared),
        )


def _part_in(config: PartConfig, usual: Part) -> Part:
    return config.get("part", usual) if isinstance(config, Mapping) else usual
