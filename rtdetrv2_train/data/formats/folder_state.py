"""What the files of a folder are known by, so that an index built from them is used as long as they stay the same.

Asking the system for the size and time of a file takes some microseconds, which is half a second for a large set at
every start. So only up to `EXACT` label files are all asked for. Beyond it, names and folders are, and a sample of the
files. See `state_of_labels` for what that misses.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

EXACT, SAMPLED = 20_000, 5_000  # files
_LOOKED_AT = 20  # files of a folder
_LINKS_OF_LEAF = 2  # of a folder without folders in it, where the file system counts them


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from this one downwards, with the names of its files; hidden ones are left out.

    Names are as the system lists them, in no order. A folder that cannot be read has no files.

    Args:
        folder: where to begin.
        suffixes: of the files, in lower case.
    """
    for here, names in folders_below(folder, suffixes, None):
        yield here, names or []


def folders_below(
    folder: Path, suffixes: tuple[str, ...], most: int | None, always: Path | None = None
) -> Iterator[tuple[Path, list[str] | None]]:
    """As `files_below`, without listing large folders in which there are no folders: None instead of their names.

    Args:
        folder: where to begin.
        suffixes: of the files, in lower case.
        most: entries of a folder that is listed; None: any number.
        always: a folder that is listed however large it is.
    """
    waiting, seen = [folder], set()
    while waiting:
        here = waiting.pop()
        try:
            state = here.stat()
            is_leaf = state.st_nlink == _LINKS_OF_LEAF and state.st_mtime_ns and not (always and here.samefile(always))
            with os.scandir(here) as listing:
                entries = list(listing if most is None or not is_leaf else islice(listing, most + 1))
        except OSError:
            continue
        if (state.st_dev, state.st_ino) in seen:  # a link back up
            continue
        seen.add((state.st_dev, state.st_ino))
        if most is not None and is_leaf and len(entries) > most:
            yield here, None
            continue
        names = [name for entry in entries if (name := entry.name).lower().endswith(suffixes) and name[0] != "."]
        if len(names) < len(entries):
            inner = {
                entry.name
                for entry in entries
                if entry.is_dir() and entry.name[0] != "." and entry.name != "__MACOSX"  # left by zip on macOS
            }
            waiting.extend(here / name for name in sorted(inner, reverse=True))
            names = [name for name in names if name not in inner] if inner else names
        yield here, names


def names_in(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The names of the files right in a folder, as `files_below` gives them."""
    return next((names for _, names in files_below(folder, suffixes)), [])


def state_of_names(places: Iterable[tuple[Path, Sequence[str] | None]]) -> dict[str, Any]:
    """Folders, seen from the first one, and the names of files in them, as a state for the index.

    Where names are None, the folder is known by its time: it changes with every file that comes, goes or is renamed.
    """
    count, checksum, first = 0, 0, None
    for folder, names in places:
        first = first or folder
        count += len(names or ())
        known_by = [str(folder.stat().st_mtime_ns)] if names is None else names
        text = "\0".join([os.path.relpath(folder, first), *known_by])
        checksum = zlib.crc32(text.encode(errors="surrogateescape"), checksum)
    return {"files": count, "names": checksum}


def state_of_some(places: Iterable[tuple[Path, Sequence[str] | None]]) -> int:
    """Sizes and times of a few files of each folder, as a state for the index: all may have been resized in place.

    Args:
        places: folders and the names of files in them; None: not known, and such a folder is left out.
    """
    checksum = 0
    for folder, names in places:
        for name in (names or ())[:: max(1, len(names or ()) // _LOOKED_AT)]:
            with contextlib.suppress(OSError):
                state = os.stat(folder / name)  # noqa: PTH116
                checksum = zlib.crc32(f"{state.st_size} {state.st_mtime_ns}".encode(), checksum)
    return checksum


def state_of_labels(folders: Iterable[Path], suffix: str, index: Path | None = None) -> dict[str, Any]:
    """Names, sizes and times of all label files of some folders, as a state for the index.

    Of more than `EXACT` files, sizes and times are those of the folders and of `SAMPLED` files spread among them. What
    is added, removed, renamed or replaced by a new file is noticed all the same, and so is a tool that writes many of
    the files. What is missed is another content written into one of the other files without replacing it.

    Args:
        folders: those that hold label files, not searched below; in the same order every time.
        suffix: of the label files, in lower case.
        index: the folder that the index is written to, whose time changes with it; None: none of them.
    """
    listed: dict[Path, list[str]] = {}
    suffixes = (suffix, suffix.upper())
    for folder in folders:
        with contextlib.suppress(OSError), _opened(folder) as number:
            listed[folder] = [name for name in os.listdir(number) if name.endswith(suffixes)]  # noqa: PTH208
    state = state_of_names(listed.items())
    step = -(-int(state["files"]) // SAMPLED) if state["files"] > EXACT else 1
    checksum = 0
    for folder, names in listed.items():
        with _opened(folder) as number:  # the system then need not look up the folder for every file
            states = [os.stat(name, dir_fd=number) for name in names[::step]]
        checksum = zlib.crc32(repr([(state.st_size, state.st_mtime_ns) for state in states]).encode(), checksum)
    state["contents"] = checksum
    if step > 1:
        state["modified"] = [folder.stat().st_mtime_ns for folder in listed if not (index and folder.samefile(index))]
    return state


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The number of a folder that is open."""
    number = os.open(folder, os.O_RDONLY)
    try:
        yield number
    finally:
        os.close(number)
