"""Training on a GPU does what it does on a CPU: AMP, NaN, OOM, resume, one process of DDP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.contenders import Setting
from benchmarks.gpu import memory_checks, training_checks
from benchmarks.gpu.waits import of_bare_step, of_lightning_step
from rtdetrv2_train.ops.assignment import solves_on

OPTIMIZERS = ("adamw", "muon")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_the_loss_falls_in_mixed_precision(precision: str, optimizer: str, tmp_path: Path) -> None:
    found = training_checks.amp(tmp_path / "run", "cuda", precision, optimizer)
    assert found["precision"] == precision
    assert found["last by first"] <= training_checks.LOSS_FALLS["last by first"]
    assert (found["scale"] == "none") == (precision == "bf16-mixed")
    assert found["steps taken"] >= 30  # the scaler leaves out the first ones, until it has found its scale


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_with_nan_changes_nothing_and_is_written_down(optimizer: str, tmp_path: Path) -> None:
    found = training_checks.nan_is_skipped(tmp_path / "run", "cuda", optimizer)
    assert found == {"changed": 0, "not finite": 0, "written down": 1}


def test_a_batch_that_runs_out_of_memory_is_split_with_the_gradient_of_the_whole() -> None:
    found = memory_checks.split_gradient("cuda", "r18vd", size=320, images=8)
    assert found["deviation"] <= 1e-9
    assert len(found["batches"]) >= 3


def test_the_batch_that_fits_is_found_without_changing_anything(tmp_path: Path) -> None:
    found = memory_checks.batch_that_fits(tmp_path / "run", "cuda", "nano", 256, share=64, limit=2**30)
    assert 1 <= found["images"] < 64
    assert found["changed"] == 0


def test_a_run_that_is_resumed_ends_as_close_to_one_without_interruption_as_an_equal_run(tmp_path: Path) -> None:
    found = training_checks.resume(tmp_path, "cuda")
    assert found["verdict"] in ("bit-equal", "as close as an equal run"), found


def test_a_process_group_of_one_works_over_nccl() -> None:
    assert training_checks.one_process_group("cuda") == {"backend": "nccl", "difference": 0}


@pytest.mark.slow
def test_a_run_of_one_rank_comes_to_its_end(tmp_path: Path) -> None:
    found = training_checks.run_of_one_rank(tmp_path, "cuda")
    assert found["report written"]


def test_assignments_cost_what_scipys_cost() -> None:
    from benchmarks import assignment  # on a CPU it tells Triton to interpret

    assert solves_on("cuda")
    assert sum(assignment.check(cases=800, seed=0).values()) == 0


def test_a_step_waits_for_nothing_but_the_assignment() -> None:
    found = of_bare_step("nano", 128, 4, Setting("cuda", torch.bfloat16))
    assert not [place for place in found["places"] if "matcher.py" not in place]
    assert found["waits a step"] <= 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_by_lightning_waits_besides_for_what_the_step_before_has_copied(optimizer: str, tmp_path: Path) -> None:
    places = of_lightning_step(tmp_path / "run", "cuda", optimizer)["places"]
    assert not [place for place in places if "matcher.py" not in place and "nan_guard.py" not in place]
