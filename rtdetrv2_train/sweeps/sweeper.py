"""A sweep: the trials of a study, run one after the other or several at once, on any of Hydra's launchers."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig

from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.configuration_errors import check_keys, missing_key, no_such_key
from rtdetrv2_train.runs.overrides import quoted
from rtdetrv2_train.runs.processes import devices_and_nodes, is_rank_zero

if TYPE_CHECKING:
    from rtdetrv2_train.sweeps.space import Space
    from rtdetrv2_train.sweeps.study import SweepStudy

log = logging.getLogger(__name__)


def sweep(config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> None:
    """Run the trials that are left, then print and draw all of them.

    Args:
        config: of the sweep as Hydra composed it, ``hydra`` included.
        context: Hydra's, for its launchers.
        task: trains one run.
        arguments: the overrides of the command line, those with several values included.

    Raises:
        UserError: if Optuna is missing, nothing is varied, or the sweep was started with other settings.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError('a sweep needs Optuna: pip install "rtdetrv2-train[sweep]"')
    if devices_and_nodes() not in (None, (1, 1)):
        raise UserError("a sweep starts the processes of its trials itself: python train.py -m sweep=... trainer=ddp")
    from rtdetrv2_train.sweeps.results import save_table
    from rtdetrv2_train.sweeps.space import space_and_rest
    from rtdetrv2_train.sweeps.study import SweepStudy

    settings = config.sweep
    proposed = [f"{key}={value}" for key, value in (settings.space or {}).items()]
    space, rest = space_and_rest([*proposed, *arguments])
    if not space:
        raise UserError("the sweep varies nothing: give values, recipe.learning_rate=1e-4,2e-4, or sweep.space")
    _check_keys(config, context, space, rest)
    folder = Path(settings.folder).absolute()
    study = SweepStudy(folder, pruner=instantiate(settings.pruner))
    fixed = {key: value for key, _, value in (text.partition("=") for text in rest) if not _is_of_sweep(key)}
    study.hold_to(fixed | {key: str(distribution) for key, distribution in space.items()})
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=TrialTask(task), config=config
    )

    def sampler(number: int) -> Any:
        return instantiate(settings.sampler, seed=config.seed + number)

    with study.worker() as worker:
        while claimed := study.claim(worker, settings.parallel, space, settings.trials, sampler):
            numbers = [trial.number for trial in claimed]
            jobs = []
            for trial in claimed:
                chosen = [f"{key}={value}" for key, value in trial.params.items()]
                job = [*rest, *chosen, f"sweep.folder={quoted(str(folder))}", f"sweep.trial={trial.number}"]
                with _failing(study, [trial.number]):
                    context.config_loader.load_sweep_config(config, job)  # values that nothing can be composed with
                    jobs.append(job)
            with _failing(study, numbers):
                if jobs:
                    launcher.launch(jobs, initial_job_idx=numbers[0])
            for number in numbers:
                study.fail_if_unfinished(number, "its process ended without a word")
            save_table(folder / "trials.csv", study.trials)
    _conclude(study, folder, config.trainer.max_epochs)


def _check_keys(config: DictConfig, context: HydraContext, space: Space, rest: Sequence[str]) -> None:
    """Refuse to vary what no trial would read, by composing with the first values."""
    from rtdetrv2_train.sweeps.space import first_value

    for key in space:
        if _is_of_sweep(key.lstrip("+")):
            raise UserError(f"'{key}' is a setting of the sweep itself: vary a key of training, seed=1,2")
    try:
        overrides = [*rest, *(f"{key}={first_value(values)}" for key, values in space.items())]
        check_keys(context.config_loader.load_sweep_config(config, overrides), "train")
    except HydraException as error:  # a value that nothing can be composed with fails its own trials
        if (unknown := missing_key(error)) is not None:
            raise UserError(no_such_key(unknown, "train")) from error


@dataclass
class TrialTask:
    """Trains one trial, wherever a launcher runs it, and records the result in the study.

    Args:
        task: trains one run.
    """

    task: TaskFunction

    def __call__(self, config: DictConfig) -> float | None:
        """Train, from the trial's last checkpoint if it was interrupted.

        Args:
            config: of the trial.

        Returns:
            Its AP; None if it failed, or if another worker has taken it over.
        """
        from rtdetrv2_train.sweeps.study import SweepStudy

        config.resume = "auto"
        if not is_rank_zero():  # of a SLURM job of several tasks
            return self.task(config)
        study, number = SweepStudy(config.sweep.folder), config.sweep.trial
        with study.running(number) as is_ours:
            if not is_ours:
                return None
            try:
                ap: Any = self.task(config)
                if ap is None or math.isnan(ap):
                    raise UserError("nothing was measured in validation, so there is no AP")
            except Exception as error:
                log.exception("trial %d", number)
                study.fail(number, _reason(error))
                return None
            study.finish(number, ap)
            return float(ap)


@contextmanager
def _failing(study: SweepStudy, numbers: Sequence[int]) -> Iterator[None]:
    """Turn an error here into failed trials, so that the sweep continues."""
    try:
        yield
    except Exception as error:
        log.exception("trials %s", ", ".join(map(str, numbers)))
        for number in numbers:
            study.fail_if_unfinished(number, _reason(error))


def _conclude(study: SweepStudy, folder: Path, epochs: int) -> None:
    from rtdetrv2_train.sweeps.charts import save_charts
    from rtdetrv2_train.sweeps.results import print_table, save_table

    save_table(folder / "trials.csv", study.trials)
    print_table(study.trials, epochs)
    charts = save_charts(folder, study.study)
    for path in (folder / "trials.csv", *charts):
        print_line(os.path.relpath(path))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError | HydraException) else f"{type(error).__name__}: {error}"


def _is_of_sweep(key: str) -> bool:
    return key == "sweep" or key.startswith("sweep.")
