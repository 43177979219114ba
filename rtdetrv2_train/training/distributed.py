"""Distributed training (DDP) on one machine: this process is rank 0 and launches the other ranks.

Lightning's own launcher would run this process's command line again. Under Hydra that would compose the configuration
again, with another time and so another run folder; in a sweep it would start the whole sweep. So the other ranks are
started before Lightning's Trainer is made, with the environment variables of an external launcher.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_GRACE_SECONDS = 60.0  # for rank 0 to notice a lost rank itself, and to end with its own message
_POLL_SECONDS = 0.5


@contextmanager
def local_ranks(world_size: int, command: Sequence[str]) -> Iterator[None]:
    """Run ranks 1 to ``world_size - 1`` as child processes within this context. They have ended when it is left.

    If a rank fails, collectives usually fail on rank 0, too. If rank 0 has not ended a minute later (NCCL may wait
    forever), it is killed.

    Args:
        world_size: number of ranks, this one included; with 1, no process is started.
        command: command line of the other ranks.
    """
    if world_size == 1:
        yield
        return
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",  # tells Lightning that an external launcher started the ranks
        "WORLD_SIZE": str(world_size),
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    others = [
        subprocess.Popen(list(command), env=os.environ | {"LOCAL_RANK": str(rank)}) for rank in range(1, world_size)
    ]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    try:
        yield
    except BaseException:
        for process in others:
            process.send_signal(signal.SIGKILL)
        raise
    finally:
        over.set()
        for process in others:
            process.wait()
        _leave_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """Kill all ranks some time after one has failed, unless rank 0 has ended by then."""
    while not over.wait(_POLL_SECONDS):
        if failed := [process for process in others if process.poll()]:
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline:
                if over.wait(_POLL_SECONDS):
                    return
            sys.stderr.write(
                f"error: another process of this run was lost (status {failed[0].returncode}), see its messages; "
                "continue with resume= and the run's folder\n"
            )
            for process in others:
                process.kill()
            os._exit(1)


def _leave_group() -> None:
    from torch import distributed  # here, as this module is also used before PyTorch is imported

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
