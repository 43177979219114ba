"""One folder for one run, however many processes it has, and whoever has started them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.processes import agreed_folder, devices_and_nodes, is_rank_zero, slurm_folder
from tests.running import TINY, WITHOUT_PICTURES, of_set, run_script
from tests.support import ROOT, write_coco

_ASK = """
import os, sys, time
from pathlib import Path
from rtdetrv2_train.runs.processes import agreed_folder, devices_and_nodes, is_rank_zero
time.sleep(0.2 * (3 - int(os.environ["RANK"])))
print("says", agreed_folder(lambda: Path("runs/of_" + os.environ["RANK"])), devices_and_nodes(), is_rank_zero())
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "NODE_RANK", "RANK")):
            monkeypatch.delenv(name)
    return monkeypatch


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_processes_of_two_nodes_of_torchrun_agree_on_the_folder_of_rank_0(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(_ASK)
    port = str(free_port())
    nodes = []
    for node in ("0", "1"):
        where = tmp_path / node
        where.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
        command += [f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}", str(tmp_path / "ask.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        nodes.append(subprocess.Popen(command, cwd=where, env=environment, stdout=subprocess.PIPE, text=True))
    lines = [line for node in nodes for line in node.communicate(timeout=100)[0].splitlines() if "says" in line]
    folder = "runs/of_0"
    assert sorted(lines) == [f"says {folder} (2, 2) False"] * 3 + [f"says {folder} (2, 2) True"]


def test_a_run_of_slurm_is_named_after_its_job(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "4711", "NTASKS": "8", "NNODES": "2", "PROCID": "3", "STEP_ID": "0"}.items():
        environment.setenv(f"SLURM_{name}", value)
    assert slurm_folder(Path("runs/nano")) == Path("runs/nano/slurm_4711")
    assert devices_and_nodes() == (4, 2)
    assert not is_rank_zero()
    environment.setenv("SLURM_STEP_ID", "2")
    assert slurm_folder(Path("runs/nano")) == Path("runs/nano/slurm_4711_step2")
    environment.setenv("SLURM_JOB_NAME", "interactive")
    assert slurm_folder(Path("runs/nano")) is None


def test_a_second_node_of_lightnings_launcher_is_sent_to_torchrun(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NODE_RANK", "1")
    with pytest.raises(UserError, match="several nodes need torchrun or SLURM"):
        agreed_folder(lambda: Path("runs/nano/now"))


@pytest.mark.slow
def test_runs_of_two_processes_one_after_the_other_leave_one_folder_each(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "set", num_images=8)
    where = tmp_path / "here"
    where.mkdir()
    settings = ["trainer=ddp_cpu", "trainer.max_epochs=1", "recipe.total_batch_size=8", "seed=0,1"]
    run_script("train.py", "-m", *TINY, *WITHOUT_PICTURES, *of_set(data), *settings, folder=where)
    assert [path.name for path in where.iterdir()] == ["runs"]
    (sweep,) = (where / "runs" / "nano").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", "multirun.yaml"]
    for run in ("0", "1"):
        names = {path.name for path in (sweep / run).iterdir()}
        assert {name for name in names if name.endswith(".log")} == {"train.log"}
        assert {"config.yaml", "metrics.json", "model"} <= names
