"""Hydra's sweeper of studies. Hydra takes plugins from this folder only, and reads it at every start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


_SWEEPER = {"_target_": "hydra_plugins.rtdetrv2_study.StudySweeper"}  # its settings are those of the group sweep
ConfigStore.instance().store(group="hydra/sweeper", name="study", node=_SWEEPER, provider="rtdetrv2_train")


class StudySweeper(Sweeper):
    """Runs the trials of a study on any of Hydra's launchers: see :mod:`rtdetrv2_train.sweeps.sweeper`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what :meth:`sweep` needs."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing."""
        from rtdetrv2_train.sweeps.sweeper import sweep

        sweep(self.config, self.hydra_context, self.task_function, arguments)
