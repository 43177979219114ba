"""Every way of launching runs, with one small epoch each. Checks that each run leaves one complete folder, no more.

    python benchmarks/launching.py FOLDER                            # some five minutes on one core
    python benchmarks/launching.py FOLDER --ways torchrun             # only ways whose name contains a word

Two "nodes" are two torchrun processes on this machine. SLURM is simulated by its environment variables. A way whose
launcher is not installed is skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_TRAIN = str(_ROOT / "train.py")
_RUN = ["model=nano", "model.image_size=[64,64]", "augment=light", "recipe.total_batch_size=8", "trainer.max_epochs=1"]
_RUN += ["data=shapes", "data.num_train=64", "data.num_val=32", "data.drawn_size=64", "data.num_workers=0"]
_TWO_RUNS = ["-m", *_RUN, "seed=0,1"]
_TWO_NODES = [
    [
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=2",
        f"--node-rank={node}",
        "--master-port=29533",
        _TRAIN,
    ]
    for node in (0, 1)
]
_ON_CPU = ["trainer=slurm", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.sync_batchnorm=false"]
_SLURM = {"JOB_ID": "4711", "STEP_ID": "0", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODEID": "0"}
_SLURM |= {"JOB_NAME": "train", "NODELIST": "127.0.0.1"}

# name: required package, commands that are started together, number of runs
_WAYS: dict[str, tuple[str, list[list[str]], int]] = {
    "one process": ("hydra", [[_TRAIN, *_RUN, "trainer=cpu"]], 1),
    "DDP, 2 ranks": ("hydra", [[_TRAIN, *_RUN, "trainer=ddp_cpu"]], 1),
    "DDP, 2 ranks, -m": ("hydra", [[_TRAIN, *_TWO_RUNS, "trainer=ddp_cpu"]], 2),
    "torchrun, 2 x 2 ranks": ("hydra", [[*node, *_RUN, "trainer=ddp_cpu"] for node in _TWO_NODES], 1),
    "torchrun, 2 x 2 ranks, -m": ("hydra", [[*node, *_TWO_RUNS, "trainer=ddp_cpu"] for node in _TWO_NODES], 2),
    "SLURM, 2 ranks": ("hydra", [[_TRAIN, *_RUN, *_ON_CPU]] * 2, 1),
    "joblib, -m": (
        "hydra_plugins.hydra_joblib_launcher",
        [[_TRAIN, *_TWO_RUNS, "trainer=cpu", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]],
        2,
    ),
    "submitit, -m": (
        "hydra_plugins.hydra_submitit_launcher",
        [[_TRAIN, *_TWO_RUNS, "trainer=cpu", "hydra/launcher=submitit_local"]],
        2,
    ),
    "submitit, 2 ranks, -m": (
        "hydra_plugins.hydra_submitit_launcher",
        [[_TRAIN, *_TWO_RUNS, "trainer=ddp_cpu", "hydra/launcher=submitit_local"]],
        2,
    ),
    "Ray, -m": (
        "hydra_plugins.hydra_ray_launcher",
        [[_TRAIN, *_TWO_RUNS, "trainer=cpu", "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]],
        2,
    ),
}
_OF_A_RUN = {
    "config.yaml",
    "metrics.json",
    "history.json",
    "report.html",
    "checkpoints",
    "model",
    ".hydra",
    "train.log",
}
_OF_A_MULTIRUN = {"multirun.yaml", ".submitit"}


def main() -> None:
    """Launch, wait, check the folders, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ways", default="", help="only ways whose name contains this")
    arguments = parser.parse_args()
    all_clean = True
    for number, (name, (package, commands, runs)) in enumerate(_WAYS.items()):
        if arguments.ways not in name:
            continue
        if importlib.util.find_spec(package) is None:
            print(f"{name:32} not installed", flush=True)
            continue
        where = (arguments.folder / str(number)).absolute()
        where.mkdir(parents=True)
        began = time.monotonic()
        ended_well = _run(commands, where, arguments.folder.absolute() / "shapes")
        found, strange = _look(where)
        clean = ended_well and found == runs and not strange
        all_clean &= clean
        seconds = time.monotonic() - began
        note = "clean" if clean else f"NOT CLEAN: {strange or 'see the logs beside the folder'}"
        print(f"{name:32} {runs} runs, {found} folders, {seconds:3.0f} s: {note}", flush=True)
    sys.exit(0 if all_clean else 1)


def _run(commands: Sequence[Sequence[str]], where: Path, data: Path) -> bool:
    """Start commands together, 1.5 seconds apart, so that their clocks differ. Returns whether all succeed."""
    processes = []
    for number, command in enumerate(commands):
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        if "trainer=slurm" in command:
            environment |= {f"SLURM_{key}": value for key, value in _SLURM.items()}
            environment |= {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
        with where.with_suffix(f".{number}.txt").open("wb") as output:
            full = [sys.executable, *command, f"data.root={data}"]
            processes.append(
                subprocess.Popen(full, cwd=where, env=environment, stdout=output, stderr=subprocess.STDOUT)
            )
        time.sleep(1.5)
    return max([process.wait() for process in processes]) == 0


def _look(where: Path) -> tuple[int, list[str]]:
    """Number of run folders, and every path that is missing or should not be there."""
    runs = [path.parent for path in where.rglob("config.yaml") if path.parent.name != ".hydra"]
    above = {folder for run in runs for folder in run.parents}
    strange = [
        path for path in where.rglob("*") if path not in above and not any(run in [path, *path.parents] for run in runs)
    ]
    strange = [path for path in strange if not _OF_A_MULTIRUN & set(path.relative_to(where).parts)]
    lacking = [run / name for run in runs for name in _OF_A_RUN if not (run / name).exists()]
    logs = [path for run in runs for path in run.rglob("*.log") if path.name != "train.log"]
    return len(runs), [str(path.relative_to(where)) for path in [*strange, *lacking, *logs]]


if __name__ == "__main__":
    main()
