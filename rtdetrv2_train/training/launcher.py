"""Lightning's launcher of processes on one machine, for programs that start many runs one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.distributed
from lightning import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher


class CommandLauncher(_SubprocessScriptLauncher):
    """Starts the other processes by a given command, and can be closed.

    Lightning's own runs this process's command line again. Under Hydra that composes the configuration again, at
    another time and in another folder; in a sweep it would be the whole sweep, and in a process of joblib, submitit or
    Ray some program of theirs.

    Args:
        launcher: of Lightning's, to stand in for.
        command: starts a process that does what this one does.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, command: Sequence[str]) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.command = list(command)
        self._replaced: dict[str, str | None] = {}

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        environment = self.cluster_environment
        told = {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),  # tells Lightning that the processes have been started
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        self._replaced = {name: os.environ.get(name) for name in told}
        os.environ |= told
        for local_rank in range(1, self.num_processes):
            self.procs.append(subprocess.Popen(self.command, env=os.environ | {"LOCAL_RANK": str(local_rank)}))

    def close(self, failed: bool) -> None:
        """Leave the group of processes, see the others end, and forget about them, so that a next run can start.

        Args:
            failed: whether this process gives up, so that the others would wait for it in vain.
        """
        others = list(self.procs)
        if not others:
            return
        self.procs.clear()  # Lightning's thread that watches them has nothing more to watch
        for process in others:
            if failed:
                process.send_signal(signal.SIGKILL)
            process.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in self._replaced.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def started_by(trainer: Trainer, command: Sequence[str]) -> Iterator[None]:
    """Have the trainer start its other processes by a command, if it starts any, and end them afterwards."""
    lightnings = trainer.strategy.launcher
    if not isinstance(lightnings, _SubprocessScriptLauncher):
        yield
        return
    launcher = CommandLauncher(lightnings, command)
    trainer.strategy._launcher = launcher
    try:
        yield
    except BaseException:
        launcher.close(failed=True)
        raise
    launcher.close(failed=False)
