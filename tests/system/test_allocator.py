"""Memory that is freed on the host is there for the next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from rtdetrv2_train.system.allocator import keep_freed_memory
{call}
def step():
    maps = [torch.ones(2**22) for _ in range(8)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_given_again(call: str) -> int:
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_the_system_need_not_give_the_same_pages_again() -> None:
    before = pages_given_again("")
    if before == 0:
        pytest.skip("this system counts no page faults, or gives memory without any")
    assert pages_given_again("keep_freed_memory()") < before / 10
