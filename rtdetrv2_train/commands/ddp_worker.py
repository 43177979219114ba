"""A rank other than 0 of a run on one machine: ``python -m rtdetrv2_train.commands.ddp_worker train CONFIG``.

It takes the configuration that rank 0 has composed; without Hydra, it leaves no folder and no log.
"""

from __future__ import annotations

import ctypes
import signal
import sys

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.commands import load_command


def main(command: str, config_file: str) -> None:
    """Do what rank 0 does."""
    _end_with_parent()
    config = OmegaConf.load(config_file)
    assert isinstance(config, DictConfig)
    getattr(load_command(command), f"{command}_as_composed")(config)


def _end_with_parent() -> None:
    """Have Linux kill this process when rank 0 is killed: over NCCL it would wait for it for minutes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main(*sys.argv[1:])
