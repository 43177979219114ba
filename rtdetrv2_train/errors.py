"""The error that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
