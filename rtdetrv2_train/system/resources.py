"""Cores and memory that a process may use, within the cgroup limits of a container or a job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SHARED_MEMORY = Path("/dev/shm")


def available_cores() -> int:
    """Number of CPU cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for group in _groups("cpu"):
        text = _text(group / "cpu.max") or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():  # no limit is "max" in cgroup v2, -1 in v1
            quotas.append(int(quota) // int(period))
    return max(1, min([cores, *quotas]))


def available_memory() -> int | None:
    """Bytes of free memory within all limits; None if the system does not tell."""
    of_machine = _entry(_PROCESS / "meminfo", "MemAvailable:")
    free = [] if of_machine is None else [1024 * of_machine]
    for group in _groups("memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # The page cache counts as used, but can be reclaimed.
            kept = _entry(group / "memory.stat", "total_inactive_file") or _entry(
                group / "memory.stat", "inactive_file"
            )
            free.append(max(int(limit) - int(used) + (kept or 0), 0))
    return min(free, default=None)


def available_shared_memory() -> int | None:
    """Free bytes in ``/dev/shm``, through which workers hand over batches; None if there is no such limit."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups (v1 or v2) that limit this process: its own and all parents.

    In a container the paths may be those of the host. Then only the root exists, and it has the container's limits.
    """
    for line in _text(_PROCESS / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _entry(path: Path, name: str) -> int | None:
    """The number beside a name, in a file with a name and a number on each line."""
    found = [line.split()[1] for line in _text(path).splitlines() if line.split()[0] == name]
    return int(found[0]) if found else None
