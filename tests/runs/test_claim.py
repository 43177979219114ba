"""The folder of a run: chosen, made, and held by one process at a time."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs import claim
from rtdetrv2_train.runs.claim import claimed_folder
from tests.support import ROOT

_HOLD = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from rtdetrv2_train.runs.claim import claimed_folder
with claimed_folder(OmegaConf.create({"run_folder": sys.argv[1]}), (), Path("runs"), "train.log"):
    print("held", flush=True)
    sys.stdin.read()
"""


def config(**values: str | None) -> DictConfig:
    return OmegaConf.create({"run_folder": None, "resume": None, **values})


def finished(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


def test_runs_of_the_same_second_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim.time, "strftime", lambda _: "now")
    with (
        claimed_folder(config(), (), tmp_path, "train.log") as first,
        claimed_folder(config(), (), tmp_path, "train.log") as second,
    ):
        assert (first.path, second.path) == (tmp_path / "now", tmp_path / "now_2")


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_resumed(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    with (
        pytest.raises(UserError, match=f"holds a run already.*resume={run}"),
        claimed_folder(config(run_folder=str(run)), (), tmp_path, "train.log"),
    ):
        pass
    with claimed_folder(config(resume=str(run)), (), tmp_path, "train.log") as folder:
        assert folder.path == run
    with claimed_folder(config(run_folder=str(run), resume="auto"), (), tmp_path, "train.log") as folder:
        assert folder.path == run
    with (
        pytest.raises(UserError, match="leave out run_folder="),
        claimed_folder(config(run_folder=str(tmp_path / "other"), resume=str(run)), (), tmp_path, "train.log"),
    ):
        pass
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == b"weights"


def test_a_folder_belongs_to_one_process_until_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_PATIENCE_SECONDS", 0.1)
    held = config(run_folder=str(tmp_path / "run"))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, held.run_folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match="another process works in"),
            claimed_folder(held, (), tmp_path, "train.log"),
        ):
            pass
        assert (tmp_path / "run").is_dir()
        other.kill()
    with claimed_folder(held, (), tmp_path, "train.log") as folder:
        assert folder.path == tmp_path / "run"


def test_a_start_that_fails_leaves_no_new_folder_and_an_old_one_as_it_was(tmp_path: Path) -> None:
    def fail(settings: DictConfig, begun: bool) -> None:
        with claimed_folder(settings, (), tmp_path / "runs", "train.log") as folder:
            logging.getLogger("test").warning("about to fail")
            if begun:
                folder.keep()
            raise UserError("no data set")

    with pytest.raises(UserError, match="no data set"):
        fail(config(), begun=False)
    assert not list((tmp_path / "runs").iterdir())
    with pytest.raises(UserError, match="no data set"):
        fail(config(), begun=True)
    (kept,) = (tmp_path / "runs").iterdir()
    assert "about to fail" in (kept / "train.log").read_text()
    old = finished(tmp_path / "old")
    with pytest.raises(UserError, match="no data set"):
        fail(config(resume=str(old)), begun=False)
    assert (old / "checkpoints" / "last.ckpt").exists()
