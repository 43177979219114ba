"""The error that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """Something outside the code is wrong: a path, a key, a file, a value.

    The message is one line that names the thing and the way out. Entry points print it without a traceback and exit
    with status 2.
    """


class SampleError(UserError):
    """A sample cannot be made of an image.

    A data loader re-raises a worker's error with the traceback as part of the message. Only the message itself is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Stopped(SystemExit):
    """A run was told to stop, and has written what it needs to go on.

    A ``SystemExit``, so that it ends the process with its status wherever it is not caught.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'r50vd'? `` for the nearest of some names; nothing if none is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'? " if close else ""


def check_number(
    name: str, value: Any, least: float, most: float = float("inf"), whole: bool = True, others: Sequence[Any] = ()
) -> None:
    """Check that a setting is a number within a range.

    Args:
        name: of the setting.
        value: as given.
        least: the smallest value that is allowed.
        most: the largest.
        whole: whether it is a whole number.
        others: what is allowed besides, for the message.

    Raises:
        UserError: if it is none.
    """
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        limits = f"from {least:g} to {most:g}" if most < float("inf") else f"of {least:g} or more"
        also = "".join(f", or {'null' if other is None else other}" for other in others)
        raise UserError(f"{name} is {value!r}: give {what} {limits}{also}")
