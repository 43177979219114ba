"""The training recipe: learning-rate schedule, warm-up, gradient clipping and EMA, and how they adapt to short runs.

The paper's recipe is made for hundreds of thousands of steps. With 2,000 warm-up steps and an EMA over 10,000 steps, a
run of a few hundred steps hardly trains at all. So every ``auto`` follows the length of the run. A long run takes the
paper's value; a short run takes a given fraction of its own length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rtdetrv2_train.errors import UserError, check_number

OptimizerName = Literal["adamw", "muon"]
LRSchedule = Literal["constant", "cosine", "flat_cosine"]
Scaling = Literal["sqrt", "linear", "none"]
Auto = Literal["auto"]
AUTO: Auto = "auto"


@dataclass(frozen=True)
class PaperRecipe:
    """The values of the paper (RT-DETRv2, section 3.1, and the authors' configuration)."""

    warmup_steps: int = 2000
    ema_decay: float = 0.9999
    ema_ramp_steps: int = 2000
    max_gradient_norm: float = 0.1
    lr_schedule: LRSchedule = "constant"
    optimizer: OptimizerName = "adamw"


@dataclass(frozen=True)
class ShortRun:
    """What ``auto`` means for a run too short for the paper's values.

    Attributes:
        below_steps: runs of fewer optimizer steps are short.
        warmup_share: warm-up steps, as a fraction of the run.
        ema_window_share: window of the EMA, ``1 / (1 - decay)`` steps, as a fraction of the run.
        ema_ramp_share: ramp of the EMA's decay, as a fraction of the run.
        from_scratch_optimizer: optimizer if no weights are pretrained.
        from_scratch_learning_rate_factor: factor of all learning rates if no weights are pretrained.
        from_scratch_max_gradient_norm: gradient clipping norm if no weights are pretrained.
        lr_schedule: learning-rate schedule after the warm-up.
        from_scratch_augmentation_share: fraction of the run with strong augmentation if no weights are pretrained. The
            rest of the run shows images as evaluation does.
        from_scratch_plain_epochs: epochs that the rest has at least; a run of fewer has no strong augmentation.
        new_decoder_gamma: exponent of the loss of the classes, MAL, if no detector's weights are loaded. The smaller it
            is, the more a query that is not matched has to learn while scores are still low.
    """

    below_steps: int = 30_000
    warmup_share: float = 1 / 15
    ema_window_share: float = 1 / 15
    ema_ramp_share: float = 1 / 15
    from_scratch_optimizer: OptimizerName = "muon"
    from_scratch_learning_rate_factor: float = 4.0
    from_scratch_max_gradient_norm: float = 1.0
    lr_schedule: LRSchedule = "cosine"
    from_scratch_augmentation_share: float = 0.5
    from_scratch_plain_epochs: int = 30
    new_decoder_gamma: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("lr_schedule", "from_scratch_optimizer"):
                check_number(f"recipe.short_run.{name}", value, 0, whole=False)


@dataclass(frozen=True)
class Schedule:
    """A recipe in which every ``auto`` is resolved.

    Attributes:
        total_steps: optimizer steps of the run.
        optimizer: ``adamw``, or ``muon`` for the matrices and AdamW for the rest.
        learning_rate_factor: factor of the learning rate of every parameter group.
        warmup_steps: steps of the warm-up.
        lr_schedule: after a linear warm-up ``constant``, or ``cosine`` down to ``final_learning_rate_share`` of it.
            ``flat_cosine``, DEIM's, is a quadratic warm-up, the full rate, a cosine down to that share, that share.
        final_learning_rate_share: lowest learning rate of a cosine, as a fraction of the peak learning rate.
        max_gradient_norm: gradient clipping norm; 0 for no clipping.
        ema_decay: decay of the EMA.
        ema_ramp_steps: time constant of its ramp, ``decay * (1 - exp(-step / ramp))``.
        notes: what ``auto`` chose and why, one line each.
        cosine_steps: first and last step of the cosine of ``flat_cosine``.
    """

    total_steps: int
    optimizer: OptimizerName
    learning_rate_factor: float
    warmup_steps: int
    lr_schedule: LRSchedule
    final_learning_rate_share: float
    max_gradient_norm: float
    ema_decay: float
    ema_ramp_steps: int
    notes: Sequence[str]
    cosine_steps: tuple[int, int] = (0, 0)

    def learning_rate_share(self, step: int) -> float:
        """Learning rate at an optimizer step, counted from 0, as a fraction of the peak learning rate."""
        warmup = min((step + 1) / max(self.warmup_steps, 1), 1.0)
        if self.lr_schedule == "flat_cosine":
            first, last = self.cosine_steps
            return warmup**2 if step < self.warmup_steps else self._cosine((step + 1 - first) / max(last - first, 1))
        if self.lr_schedule == "constant" or step < self.warmup_steps:
            return warmup
        return self._cosine((step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1))

    def _cosine(self, progress: float) -> float:
        """From 1 at a progress of 0 to the final share at 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
        return self.final_learning_rate_share + (1 - self.final_learning_rate_share) * cosine

    def ema_decay_at(self, updates: int) -> float:
        """Decay of the EMA at an update, counted from 1."""
        return self.ema_decay * (1 - math.exp(-updates / max(self.ema_ramp_steps, 1)))


@dataclass(frozen=True)
class Recipe:
    """Optimizer, learning-rate schedule and EMA as configured. Many values may be ``auto``.

    Attributes:
        learning_rate: learning rate of every parameter without a rule of its own.
        weight_decay: weight decay of every parameter without a rule of its own.
        betas: betas of AdamW.
        optimizer: ``adamw``, ``muon`` (see ``muon.py``) or ``auto``.
        muon_learning_rate: peak learning rate of Muon where AdamW's would be ``learning_rate``, at the reference batch
            size. Unlike AdamW's it need not fall with the width of a model.
        learning_rate_factor: factor of all learning rates, or ``auto``.
        warmup_steps: steps of the warm-up, or ``auto``.
        lr_schedule: learning-rate schedule: ``constant``, ``cosine``, ``flat_cosine`` or ``auto``; see `Schedule`.
        final_learning_rate_share: lowest learning rate of a cosine, as a fraction of the peak learning rate.
        flat_until_epoch: first epoch of the cosine of ``flat_cosine``, counted from 0, in a run of
            ``reference_epochs``. ``auto``: half of the epochs and 4 more, as in DEIM (arXiv 2412.04234).
        cosine_until_epoch: first epoch after that cosine; None for the end of the run.
        reference_epochs: length of the run that these epochs are meant for; a run of another length scales them.
        max_gradient_norm: gradient clipping norm, or ``auto``; 0 for no clipping.
        ema_decay: decay of the EMA, or ``auto``.
        ema_ramp_steps: time constant of the ramp of the EMA's decay, or ``auto``.
        short_run: what ``auto`` means for short runs.
        total_batch_size: images of one optimizer step.
        reference_batch_size: total batch size that the learning rates are meant for.
        lr_scaling: how learning rates scale with the total batch size. ``sqrt``: with its square root, as suits Adam
            (Malladi et al., arXiv 2205.10287). ``linear``: as suits SGD (Goyal et al., arXiv 1706.02677). ``none``.

    Raises:
        UserError: if a value is not one of these, or negative.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    optimizer: str = AUTO
    muon_learning_rate: float = 3e-3
    learning_rate_factor: float | Auto = AUTO
    warmup_steps: int | Auto = AUTO
    lr_schedule: str = AUTO
    final_learning_rate_share: float = 0.01
    flat_until_epoch: int | Auto = AUTO
    cosine_until_epoch: int | None = None
    reference_epochs: int = 1
    max_gradient_norm: float | Auto = AUTO
    ema_decay: float | Auto = AUTO
    ema_ramp_steps: int | Auto = AUTO
    short_run: ShortRun = ShortRun()
    total_batch_size: int = 16
    reference_batch_size: int = 16
    lr_scaling: str = "sqrt"

    def __post_init__(self) -> None:
        if self.lr_schedule not in (*get_args(LRSchedule), AUTO):
            raise UserError(f"recipe.lr_schedule is '{self.lr_schedule}': use constant, cosine, flat_cosine or auto")
        if self.optimizer not in (*get_args(OptimizerName), AUTO):
            raise UserError(f"recipe.optimizer is '{self.optimizer}': use adamw, muon or auto")
        check_number("recipe.muon_learning_rate", self.muon_learning_rate, 0, whole=False)
        if self.lr_scaling not in get_args(Scaling):
            raise UserError(f"recipe.lr_scaling is '{self.lr_scaling}': use sqrt, linear or none")
        for name in ("learning_rate_factor", "warmup_steps", "max_gradient_norm", "ema_decay", "ema_ramp_steps"):
            value = getattr(self, name)
            if value != AUTO:
                check_number(f"recipe.{name}", value, 0, whole=False, others=[AUTO])
        check_number("recipe.final_learning_rate_share", self.final_learning_rate_share, 0, 1, whole=False)
        if "flat_cosine" in (self.lr_schedule, self.short_run.lr_schedule):
            self._check_epochs()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"recipe.betas is {list(self.betas)}: give two numbers from 0 to below 1, as [0.9,0.999]")

    def _check_epochs(self) -> None:
        epochs = self.reference_epochs
        check_number("recipe.reference_epochs", epochs, 1)
        if self.cosine_until_epoch is not None:
            check_number("recipe.cosine_until_epoch", self.cosine_until_epoch, 0, epochs, others=[None])
        if self.flat_until_epoch != AUTO:
            check_number("recipe.flat_until_epoch", self.flat_until_epoch, 0, self._cosine_epochs[1], others=[AUTO])

    @property
    def _cosine_epochs(self) -> tuple[int, int]:
        """The epochs in which the cosine of ``flat_cosine`` begins and has ended, in a run of ``reference_epochs``."""
        end = self.reference_epochs if self.cosine_until_epoch is None else self.cosine_until_epoch
        return min(4 + self.reference_epochs // 2, end) if self.flat_until_epoch == AUTO else self.flat_until_epoch, end

    @property
    def batch_size_factor(self) -> float:
        """Factor of the learning rates that follows from the total batch size (``lr_scaling``)."""
        ratio = self.total_batch_size / self.reference_batch_size
        return {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.lr_scaling]

    def muon_factor(self, schedule: Schedule) -> float:
        """The size of Muon's steps as a multiple of AdamW's in the same run."""
        rate = self.learning_rate * schedule.learning_rate_factor
        return self.muon_learning_rate * self.batch_size_factor / rate if rate else 0.0

    def resolve(self, total_steps: int, from_scratch: bool, steps_per_epoch: int | None = None) -> Schedule:
        """Resolve every ``auto``.

        Args:
            total_steps: optimizer steps of the whole run.
            from_scratch: whether the run starts without pretrained weights.
            steps_per_epoch: optimizer steps of an epoch; None: those of a run of ``reference_epochs``.
        """
        paper, short = PaperRecipe(), self.short_run
        is_short = total_steps < short.below_steps
        scratch = is_short and from_scratch

        def share(of_run: float, at_most: int) -> int:
            return min(at_most, max(1, round(total_steps * of_run))) if is_short else at_most

        window = max(total_steps * short.ema_window_share, 1.0)
        ema_decay = min(paper.ema_decay, 1 - 1 / max(window, 2.0)) if is_short else paper.ema_decay
        scratch_factor = short.from_scratch_learning_rate_factor if scratch else 1.0
        scratch_norm = short.from_scratch_max_gradient_norm if scratch else paper.max_gradient_norm
        why = "nothing is pretrained" if scratch else "weights are pretrained" if is_short else "as in the paper"
        automatic: dict[str, tuple[Any, str]] = {
            "optimizer": (short.from_scratch_optimizer if scratch else paper.optimizer, why),
            "learning_rate_factor": (scratch_factor, why),
            "warmup_steps": (share(short.warmup_share, paper.warmup_steps), f"{short.warmup_share:.1%} of the run"),
            "lr_schedule": (
                short.lr_schedule if is_short else paper.lr_schedule,
                "so that a short run, too, ends at a low rate",
            ),
            "max_gradient_norm": (scratch_norm, why),
            "ema_decay": (ema_decay, f"looks back over {short.ema_window_share:.1%} of the run"),
            "ema_ramp_steps": (
                share(short.ema_ramp_share, paper.ema_ramp_steps),
                f"{short.ema_ramp_share:.1%} of the run",
            ),
        }
        resolved = {name: getattr(self, name) for name in automatic}
        chosen = {name: choice for name, choice in automatic.items() if resolved[name] == AUTO}
        resolved |= {name: value for name, (value, _) in chosen.items()}
        length = f"{total_steps:,} steps, " + (
            f"fewer than {short.below_steps:,}: settings follow the length of the run"
            if is_short
            else "long enough for the paper's values"
        )
        length += ", started from scratch" if from_scratch else ", started from pretrained weights"
        lines = (
            f"{name} = {value if isinstance(value, str) else format(value, '.6g')}{f': {reason}' * is_short}"
            for name, (value, reason) in chosen.items()
        )
        notes = [f"auto settings for {length}", *(f"  recipe.{line}" for line in lines)] if chosen else []
        resolved["learning_rate_factor"] *= self.batch_size_factor
        if self.total_batch_size != self.reference_batch_size:
            notes.append(
                f"learning rates times {self.batch_size_factor:.4g} (recipe.lr_scaling={self.lr_scaling}): "
                f"{self.total_batch_size} images a step, and they are meant for {self.reference_batch_size}"
            )
        return Schedule(
            total_steps=total_steps,
            final_learning_rate_share=self.final_learning_rate_share,
            notes=notes,
            cosine_steps=self._cosine_steps(total_steps, steps_per_epoch),
            **resolved,
        )

    def _cosine_steps(self, total_steps: int, steps_per_epoch: int | None) -> tuple[int, int]:
        steps = steps_per_epoch or max(total_steps // self.reference_epochs, 1)
        epochs = math.ceil(total_steps / steps)
        first, last = (scaled_epoch(epoch, self.reference_epochs, epochs) for epoch in self._cosine_epochs)
        return first * steps, last * steps


def scaled_epoch(epoch: int, reference_epochs: int, epochs: int) -> int:
    """An epoch that a run of ``reference_epochs`` is meant to have, in a run of ``epochs``: where it has as much done.

    As the augmentation schedule scales its own, so that both change at the same time: rounded down, but to 1 at least.
    """
    return max(1, epoch * epochs // reference_epochs) if epoch > 0 else 0
