"""Which augmentation is active in which epoch.

The dynamic data augmentation of RT-DETRv2 (arXiv 2407.17140, 3.2), and the phases of DEIM (arXiv 2412.04234).
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from rtdetrv2_train.errors import UserError, check_number

MULTISCALE, MOSAIC, MIXUP = "multiscale", "mosaic", "mixup"
STANDARD_NAMES = ("photometric", "zoom_out", "iou_crop", "flip", MULTISCALE, MOSAIC, MIXUP)
_KEYS = ("start", "stop", "lasts")


Phases: TypeAlias = Mapping[str, Mapping[str, float | None] | None]


class AugmentationSchedule:
    """The epochs, counted from 0, in which each named augmentation is active.

    What is not named in ``phases`` is active throughout. Epochs are those of a run of ``reference_epochs``; a longer or
    shorter run scales them, so that a tenth of the epochs keeps the same share of strong augmentation.

    Args:
        phases: for each augmentation ``start`` (first active epoch, None for 0), ``stop`` (first inactive epoch,
            None for never) and ``lasts`` (share of all epochs after which it stops, if not before; None for no limit).
        reference_epochs: length of the run that the epochs of ``phases`` are meant for.
        max_epochs: length of this run; -1 where it is given in steps, so that :meth:`lasting` has to tell.
        known_names: names of augmentations of this run besides the standard ones.

    Raises:
        UserError: if a name, a key or an epoch makes no sense.
    """

    def __init__(
        self,
        phases: Phases,
        reference_epochs: int,
        max_epochs: int,
        known_names: Collection[str] = (),
    ) -> None:
        check_number("data.reference_epochs", reference_epochs, 1)
        if max_epochs != -1:
            check_number("data.max_epochs", max_epochs, 1)
        self.reference_epochs = reference_epochs
        self.max_epochs = max_epochs if max_epochs != -1 else reference_epochs
        self._given = (phases, known_names)
        names = sorted({*STANDARD_NAMES, *known_names})
        self._phases: dict[str, tuple[int, int | None]] = {}
        for name, phase in phases.items():
            if name not in names:
                raise UserError(f"augment.schedule names '{name}', which is no augmentation{_nearest(name, names)}")
            if phase is not None:
                self._phases[name] = self._read(name, phase)

    def active(self, name: str, epoch: int) -> bool:
        """Whether the augmentation takes part in this epoch, counted from 0."""
        start, stop = self._phases.get(name, (0, None))
        return start <= epoch and (stop is None or epoch < stop)

    def lasting(self, max_epochs: int) -> AugmentationSchedule:
        """The same schedule for a run of another length."""
        phases, known_names = self._given
        return AugmentationSchedule(phases, self.reference_epochs, max_epochs, known_names)

    def of(self, names: Collection[str]) -> AugmentationSchedule:
        """The same schedule for a run that has no other augmentations than these."""
        phases, known_names = self._given
        kept = {name: phase for name, phase in phases.items() if name in names}
        return AugmentationSchedule(kept, self.reference_epochs, self.max_epochs, known_names)

    def stopped_by(self, latest: int) -> AugmentationSchedule:
        """The same schedule, but whatever stops in it does so at the epoch ``latest``, or earlier."""
        schedule = copy.copy(self)
        schedule._phases = {
            name: (start, None if stop is None else max(min(stop, latest), start))
            for name, (start, stop) in self._phases.items()
        }
        return schedule

    def ends_earlier_than(self, other: AugmentationSchedule) -> list[str]:
        """Names of what stops in an earlier epoch than in another schedule."""
        return [name for name, phase in self._phases.items() if phase != other._phases[name]]

    def changes(self, epoch: int) -> list[str]:
        """What switches on or off at the beginning of this epoch, one line each; nothing for epoch 0."""
        if epoch == 0:
            return []
        lines = []
        for name in self._phases:
            before, now = self.active(name, epoch - 1), self.active(name, epoch)
            if before != now:
                lines.append(f"{name} is {'on' if now else 'off'} from epoch {epoch} of {self.max_epochs}")
        return lines

    def _read(self, name: str, phase: Mapping[str, Any]) -> tuple[int, int | None]:
        for key, value in phase.items():
            where = f"augment.schedule.{name}.{key}"
            if key not in _KEYS:
                raise UserError(f"{where} is no key of a schedule{_nearest(key, list(_KEYS))}")
            if key == "lasts":
                if value is not None:
                    check_number(where, value, 0, 1, whole=False)
            elif value is not None and (not _is_epoch(value) or value < 0):
                raise UserError(f"{where} is {value!r}: give an epoch, a whole number from 0, or null")
        start, stop, lasts = (phase.get(key) for key in _KEYS)
        start = start or 0
        if stop is not None and stop < start:
            raise UserError(f"augment.schedule.{name} stops at epoch {stop}, before it starts at {start}: swap them")
        if lasts is not None:
            end = start + int(lasts * self.reference_epochs)
            stop = end if stop is None else min(stop, end)
        return self._scaled(start), None if stop is None else self._scaled(stop)

    def _scaled(self, epoch: int) -> int:
        """The epoch of this run; at least 1 unless it is 0, so that what starts or stops later is not lost."""
        return max(1, epoch * self.max_epochs // self.reference_epochs) if epoch > 0 else 0


def _is_epoch(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
    return f": did you mean '{close[0]}'? (known: {', '.join(names)})"
