"""The other processes of a run on one machine: ``python -m rtdetrv2_train.runs.another_process train CONFIG``.

They take the configuration that the first process has composed and saved; without Hydra, they leave no folder and no
log.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.runs.folders import CONFIG_FILE
from rtdetrv2_train.training.launcher import started_by


def other_processes(trainer: Trainer, task: str, run_folder: str) -> AbstractContextManager[None]:
    """Within this context the trainer starts its other processes by this module; afterwards they have ended.

    Args:
        trainer: of the first process.
        task: ``train`` or ``evaluate``.
        run_folder: where the configuration is saved before they start.
    """
    command = [sys.executable, "-m", "rtdetrv2_train.runs.another_process"]
    return started_by(trainer, [*command, task, str(Path(run_folder, CONFIG_FILE).absolute())])


def main(task: str, config_file: str) -> None:
    """Do what the first process does."""
    from rtdetrv2_train.runs.evaluate import evaluate_as_composed
    from rtdetrv2_train.runs.train import train_as_composed

    _end_with_parent()
    config = OmegaConf.load(config_file)
    assert isinstance(config, DictConfig)
    if task == "train":
        train_as_composed(config)
    else:
        evaluate_as_composed(config)


def _end_with_parent() -> None:
    """Have Linux kill this process when the first one is killed: over NCCL it would wait for it for minutes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main(*sys.argv[1:])
