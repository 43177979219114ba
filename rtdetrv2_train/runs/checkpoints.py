"""The checkpoints in a run's folder, and telling whole ones from broken ones. Imports nothing heavy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

from rtdetrv2_train.runs.folder import BEST_CHECKPOINT, CHECKPOINT_FOLDER, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT


class Found(NamedTuple):
    """What a run can go on from.

    Attributes:
        path: the newest whole checkpoint; None if there is none.
        broken: newer ones that cannot be used, with the reason.
    """

    path: Path | None
    broken: dict[Path, str]


def newest_whole_checkpoint(run: Path) -> Found:
    """The checkpoint to go on from, passing over broken ones."""
    names = (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, BEST_CHECKPOINT)
    paths = [path for name in names if (path := run / CHECKPOINT_FOLDER / name).is_file()]
    broken: dict[Path, str] = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        reason = damage_of(path)
        if reason is None:
            return Found(path, broken)
        broken[path] = reason
    return Found(None, broken)


def damage_of(path: Path) -> str | None:
    """What is wrong with a file of ``torch.save``, read through once; None if it is whole.

    Such a file is a zip archive. Its table of contents, at its end, is missing where writing was cut short, and a
    checksum of every record tells of bytes that have changed since, which ``torch.load`` does not look at.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return f"the checksum of its part '{broken}' is wrong" if broken else None
