"""A run of several processes: which of them this is, how many there are, and the folder that they share.

Imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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


def agreed_folder(choose: Callable[[], Path]) -> Path:
    """The folder of a run on all its processes, chosen by rank 0.

    Processes of torchrun hear of it through the store over which they will find each other. Those of SLURM know it by
    :func:`slurm_folder`.

    Args:
        choose: gives the folder; called by this process unless another one's choice counts.

    Raises:
        UserError: if this is another node's process of Lightning's own launcher, which has no way to know.
    """
    if started_by_torchrun() and int(os.environ["WORLD_SIZE"]) > 1:
        return _of_rank_0(choose)
    if int(os.environ.get("NODE_RANK", 0)) > 0 and _slurm_step() is None:
        raise UserError("several nodes need torchrun or SLURM (docs/distributed.md), which start the same run on each")
    return choose()


def slurm_folder(beside: Path) -> Path | None:
    """The folder of a run under SLURM, named after its job, so that a requeued job finds it again; None elsewhere."""
    step = _slurm_step()
    return None if step is None else beside / f"slurm_{step}"


def was_restarted() -> bool:
    """Whether SLURM has put the job in the queue again, or torchrun has started its processes again."""
    return any(int(os.environ.get(f"{by}_RESTART_COUNT", 0)) > 0 for by in ("SLURM", "TORCHELASTIC"))


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _of_rank_0(choose: Callable[[], Path]) -> Path:
    """Rank 0's folder; after a restart that of its first start."""
    from torch.distributed import TCPStore  # heavy, and needed by every run of this kind anyway

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    key = "rtdetrv2_train/folder"
    if is_rank_zero() and not store.check([key]):
        store.set(key, str(choose()))
    return Path(store.get(key).decode())


def _slurm_step() -> str | None:
    """Job and step of the `srun` that has started this process; None outside of one, and in an interactive shell."""
    step, tasks = os.environ.get("SLURM_STEP_ID"), os.environ.get("SLURM_NTASKS")
    if step is None or tasks is None or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{job}_{os.environ['SLURM_ARRAY_TASK_ID']}" if job else os.environ["SLURM_JOB_ID"]
    return name if step == "0" else f"{name}_step{step}"
