"""How the C library of Linux hands memory back to the system."""

from __future__ import annotations

import ctypes
import platform

# glibc's mallopt(3): names and, where nothing is set, moving values of 128 KiB to 32 MiB and of twice that
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_UP_TO = 2**31 - 1
_OWN_PAGES_FROM = 24 * 2**20


def keep_freed_memory() -> None:
    """Keep tensors' memory for the next step, which on a CPU asks for the same again; nothing but on Linux with glibc.

    As it comes, glibc returns the end of its heap to the system whenever 64 MiB of it are free, so that every step has
    some hundred thousand pages given to it anew and filled with zeros. The largest tensors go on having pages of their
    own, which they return: the holes that they would leave in the heap take more memory than they save time.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP_UP_TO)
        libc.mallopt(_MMAP_THRESHOLD, _OWN_PAGES_FROM)
