"""Settings of the memory allocator (glibc malloc) for training on a CPU."""

from __future__ import annotations

import ctypes
import platform

# parameters of glibc's mallopt(3); by default the mmap threshold moves from 128 KiB to 32 MiB, the other is twice that
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_UP_TO = 2**31 - 1
_OWN_PAGES_FROM = 24 * 2**20


def keep_freed_memory() -> None:
    """Make malloc keep freed memory for the next training step, which needs the same again. Only for Linux with glibc.

    By default glibc returns the top of its heap to the system whenever 64 MiB of it are free. Then every step costs
    some hundred thousand page faults. The largest tensors still use mmap and return their pages: in the heap they would
    leave holes, which take more memory than they save time.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP_UP_TO)
        libc.mallopt(_MMAP_THRESHOLD, _OWN_PAGES_FROM)
