from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtdetrv2_train.system import resources
from rtdetrv2_train.system.resources import available_cores, available_memory

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores and 200 GB, whose control groups a test writes."""
    monkeypatch.setattr(resources, "_PROCESS", tmp_path / "proc")
    monkeypatch.setattr(resources, "_CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    write(tmp_path / "proc/meminfo", f"MemTotal: 263000000 kB\nMemAvailable: {200 * GB // 1024} kB\n")
    return tmp_path / "groups"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_the_machine_is_what_there_is(groups: Path) -> None:
    assert (available_cores(), available_memory()) == (64, 200 * GB // 1024 * 1024)
    write(groups.parent / "proc/self/cgroup", "0::/\n")
    write(groups / "cpu.max", "max 100000")
    write(groups / "memory.max", "max")
    assert (available_cores(), available_memory()) == (64, 200 * GB // 1024 * 1024)


@pytest.mark.parametrize(("quota", "cores"), [("400000 100000", 4), ("150000 100000", 1), ("20000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(groups: Path, quota: str, cores: int) -> None:
    write(groups.parent / "proc/self/cgroup", "0::/\n")
    write(groups / "cpu.max", quota + "\n")
    assert available_cores() == cores


def test_the_memory_of_a_container_is_what_is_left_of_its_limit(groups: Path) -> None:
    write(groups.parent / "proc/self/cgroup", "0::/user.slice/job\n")
    write(groups / "user.slice/job/memory.max", f"{16 * GB}\n")
    write(groups / "user.slice/job/memory.current", f"{10 * GB}\n")
    write(groups / "user.slice/job/memory.stat", f"anon {7 * GB}\ninactive_file {3 * GB}\n")
    assert available_memory() == 9 * GB
    write(groups / "user.slice/memory.max", f"{11 * GB}")
    write(groups / "user.slice/memory.current", f"{10 * GB}")
    assert available_memory() == GB


def test_limits_of_the_older_control_groups_count_too(groups: Path) -> None:
    # Inside of a container the path is that of the host; the limits lie at the root.
    path = "/docker/0123abc"
    write(groups.parent / "proc/self/cgroup", f"5:cpuset:{path}\n4:memory:{path}\n2:cpu,cpuacct:{path}\n1:name=x:/\n")
    write(groups / "cpu/cpu.cfs_quota_us", "800000\n")
    write(groups / "cpu/cpu.cfs_period_us", "100000\n")
    write(groups / "memory/memory.limit_in_bytes", f"{8 * GB}\n")
    write(groups / "memory/memory.usage_in_bytes", f"{2 * GB}\n")
    write(groups / "memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {GB}\n")
    assert (available_cores(), available_memory()) == (8, 7 * GB)
    write(groups / "cpu/cpu.cfs_quota_us", "-1\n")
    assert available_cores() == 64
