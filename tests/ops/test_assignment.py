from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rtdetrv2_train.ops import assignment
from tests.support import ROOT

pytest.importorskip("triton", reason="the kernel needs Triton, which comes with PyTorch for GPUs")


def test_the_kernel_finds_scipys_cost_in_random_and_nasty_cases() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.assignment", "--cases", "80", "--seed", "1"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": 0 wrong") == 8
    assert "80 cases on cpu, 0 with another cost" in result.stdout


@pytest.mark.parametrize("capability", [75, 90])
def test_the_kernel_compiles_for_gpus_without_shared_memory(capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rtdetrv2_train.ops import assignment_kernel

    types = {"cost_pointer": "*fp32", "BLOCK": "constexpr", "high_cost": "fp32"}
    names = assignment_kernel._solve.arg_names
    signature = {name: types.get(name, "*i64" if name.endswith("pointer") else "i32") for name in names}
    source = ASTSource(fn=assignment_kernel._solve, signature=signature, constexprs={"BLOCK": 512})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
    assert compiled.metadata.shared == 0  # a path is found by one warp, with shuffles alone
    assert f".target sm_{capability}" in compiled.asm["ptx"]


def test_where_there_is_no_gpu_scipy_solves() -> None:
    assert not assignment.solves_on("cpu")


def test_a_gpu_on_which_triton_fails_is_told_of_once_and_left_to_scipy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(assignment, "solve_assignments", fail)
    monkeypatch.setattr(assignment.torch, "zeros", lambda *_, **__: None)
    assignment.solves_on.cache_clear()
    try:
        assert not assignment.solves_on("cuda")
        assert not assignment.solves_on("cuda")
    finally:
        assignment.solves_on.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "assignments are solved by SciPy, which a GPU has to wait for, as Triton fails: no C compiler"
    ]
