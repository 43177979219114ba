"""The trials of a sweep, kept in its folder: several workers share them, and a later one resumes them.

A worker is a process that runs ``train.py -m sweep=...``; a trial may run in it or on another machine. Both hold a
lock while they run, which the system releases when the process ends, however that happens. A running trial whose lock
is free was interrupted, and the next worker takes it over.
"""

from __future__ import annotations

import os
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.sweeps.space import Space, combinations

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
_STUDY = "sweep"
_WORKER, _PRUNED, _ERROR = "worker", "pruned", "error"


class SweepStudy:
    """An Optuna study in a folder.

    Args:
        folder: of the sweep; made if it is missing.
        sampler: proposes parameters.
        pruner: decides which trials end early.
    """

    def __init__(
        self,
        folder: Path | str,
        sampler: BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._locks = self.folder / ".locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna's own locks stay behind where a process is killed, and every other process then waits half a minute
        backend = JournalFileBackend(str(self.folder / "study.journal"), lock_obj=self._lock("journal"))  # type: ignore[arg-type]
        with self._lock("study"):
            self.study = optuna.create_study(
                study_name=_STUDY,
                storage=JournalStorage(backend),
                direction="maximize",
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def hold_to(self, settings: Mapping[str, Any]) -> None:
        """Store the settings that all trials share, or compare them with those that are stored.

        Raises:
            UserError: if a later worker has others.
        """
        with self._lock("study"):
            kept = self.study.user_attrs.get("settings")
            if kept is None:
                self.study.set_user_attr("settings", dict(settings))
            elif kept != settings:
                names = [name for name in {**kept, **settings} if kept.get(name) != settings.get(name)]
                changes = "; ".join(f"{name}: {kept.get(name)} before, {settings.get(name)} now" for name in names)
                raise UserError(
                    f"the sweep in '{self.folder}' was begun with other settings ({changes}): repeat those to resume "
                    "it, or start another with sweep.name=..."
                )

    @contextmanager
    def worker(self) -> Iterator[str]:
        """Hold a worker's lock; yields its name."""
        name = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        with self._lock(name):
            yield name
        (self._locks / name).unlink(missing_ok=True)

    def claim(
        self, worker: str, count: int, space: Space, most: int | None, sampler: Callable[[int], BaseSampler]
    ) -> list[FrozenTrial]:
        """Claim trials to run: interrupted ones first, then new ones.

        Args:
            worker: its name.
            count: the most trials to claim.
            space: what is varied.
            most: trials of the whole sweep; None for every combination of the space once.
            sampler: makes a sampler for the trial of a number, so that it draws the same whoever draws when.

        Returns:
            The trials; empty if none are left to run.
        """
        numbers: list[int] = []
        with self._lock("study"):
            for trial in self.trials:
                if len(numbers) < count and trial.state is TrialState.RUNNING and not self._is_held(trial):
                    numbers.append(self._take(trial.number, worker, space, most, sampler))
            while len(numbers) < count and self._is_one_left(space, most):
                self.study.sampler = RandomSampler()  # draws nothing before the trial has its number
                numbers.append(self._take(self.study.ask().number, worker, space, most, sampler))
        return [self.trials[number] for number in numbers]

    def _is_one_left(self, space: Space, most: int | None) -> bool:
        total = most if most is not None else sum(1 for _ in combinations(space))
        return len(self.trials) < total

    def _take(
        self, number: int, worker: str, space: Space, most: int | None, sampler: Callable[[int], BaseSampler]
    ) -> int:
        if most is None:
            self.study.sampler = PartialFixedSampler(self._untried(number, space), RandomSampler())
        else:
            self.study.sampler = sampler(number)
        trial = self._attached(number)
        trial.set_user_attr(_WORKER, worker)
        for name, distribution in space.items():
            trial._suggest(name, distribution)  # a value that was drawn before stays
        return number

    def _untried(self, number: int, space: Space) -> dict[str, str]:
        """The first combination that no other trial has, and that agrees with what the trial may have already."""
        kept = self.trials[number].params.items()
        tried = [trial.params for trial in self.trials if trial.number != number]
        return next(chosen for chosen in combinations(space) if chosen not in tried and kept <= chosen.items())

    @contextmanager
    def running(self, number: int) -> Iterator[bool]:
        """Hold a trial's lock while it runs; yields False if it has ended or another worker runs it."""
        lock = self._lock(f"trial_{number}")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield self.trials[number].state is TrialState.RUNNING
        finally:
            lock.release()

    def report(self, number: int, epochs: int, ap: float, is_last: bool = False) -> bool:
        """Record a trial's AP after some epochs; returns whether to prune it, which the last epoch never does."""
        trial = self._attached(number)
        if epochs not in self.trials[number].intermediate_values:
            trial.report(ap, epochs)
        hopeless = not is_last and trial.should_prune()
        if hopeless:
            trial.set_user_attr(_PRUNED, True)
        return hopeless

    def finish(self, number: int, ap: float) -> None:
        """Record the AP of a trial that has ended."""
        if self.trials[number].user_attrs.get(_PRUNED):
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, ap)

    def fail(self, number: int, reason: str) -> None:
        """Mark a trial as failed."""
        self._attached(number).set_user_attr(_ERROR, " ".join(reason.split()))
        self.study.tell(number, state=TrialState.FAIL)

    def fail_if_unfinished(self, number: int, reason: str) -> None:
        """Mark a trial as failed that should have ended, unless another process runs it."""
        if self.trials[number].state is TrialState.RUNNING and not self._is_locked(f"trial_{number}"):
            self.fail(number, reason)

    def _attached(self, number: int) -> Trial:
        return Trial(self.study, self.trials[number]._trial_id)

    def _is_held(self, trial: FrozenTrial) -> bool:
        """Whether the trial runs, or the worker that claimed it does."""
        return any(self._is_locked(name) for name in (trial.user_attrs.get(_WORKER), f"trial_{trial.number}") if name)

    def _is_locked(self, name: str) -> bool:
        lock = self._lock(name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._locks / name)
