"""A run of several processes: which of them this is, how many there are, and the folder that they share.

Imports nothing heavy.
"""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from pathlib import Path

from rtdetrv2_train.errors import UserError

_PATIENCE = timedelta(minutes=10)  # for rank 0 to say where the run goes, while other nodes may already wait


def was_started_by_rank_zero() -> bool:
    """Whether this is a rank that another process of this project has started on this machine."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and not started_by_torchrun()


def is_rank_zero() -> bool:
    """Whether this process writes the files of the run: the only one, or rank 0 of torchrun or SLURM."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


def devices_and_nodes() -> tuple[int, int] | None:
    """How many processes a node has, and how many nodes there are; None if nobody outside has started processes."""
    if started_by_torchrun():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return devices, int(os.environ["WORLD_SIZE"]) // devices
    if _slurm_step() is not None:
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", 1)))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


def shared_run_folder(proposed: str, resumed: Path | None = None) -> str:
    """The folder of a run on all its processes.

    Each process has proposed one by its own clock, and these differ: rank 0's counts. Processes of torchrun hear it
    through the store over which they will find each other. Those of SLURM name the folder after their job, so that a
    requeued job finds the folder again.

    Args:
        proposed: for a new run, by this process.
        resumed: that of a resumed run, which ranks of torchrun may see differently for a moment.

    Raises:
        UserError: if this is another node's process of Lightning's own launcher, which has no way to know.
    """
    if started_by_torchrun():
        chosen = str(resumed or proposed)
        return _of_rank_0(str(Path(chosen).absolute())) if int(os.environ["WORLD_SIZE"]) > 1 else chosen
    if resumed is not None:
        return str(resumed)
    if (step := _slurm_step()) is not None:
        return str(Path(proposed).with_name(f"slurm_{step}"))
    if int(os.environ.get("NODE_RANK", 0)) > 0:
        raise UserError("several nodes need torchrun or SLURM (docs/distributed.md), or hydra.run.dir=... on each")
    return proposed


def was_restarted() -> bool:
    """Whether SLURM has put the job in the queue again, or torchrun has started its processes again."""
    return any(int(os.environ.get(f"{by}_RESTART_COUNT", 0)) > 0 for by in ("SLURM", "TORCHELASTIC"))


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@functools.cache
def _of_rank_0(folder: str) -> str:
    """Rank 0's folder; after a restart that of its first start."""
    from torch.distributed import TCPStore  # heavy, and needed by every run of this kind anyway

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    key = "rtdetrv2_train/folder"
    if is_rank_zero():
        return str(store.compare_set(key, "", folder).decode())
    return str(store.get(key).decode())


def _slurm_step() -> str | None:
    """Job and step of the `srun` that has started this process; None outside of one, and in an interactive shell."""
    step, tasks = os.environ.get("SLURM_STEP_ID"), os.environ.get("SLURM_NTASKS")
    if step is None or tasks is None or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ["SLURM_JOB_ID"]
    return name if step == "0" else f"{name}_step{step}"
