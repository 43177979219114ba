"""The error that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something outside the code is wrong: a path, a key, a file, a value.

    The message is one line that names the thing and the way out. Entry points print it without a traceback and exit
    with status 2.
    """
