"""What a run settles from its data before it begins: its length, how often it is validated, its loss, its augmentation.

What is chosen is printed with its reason, and goes into the run's ``config.yaml``, so that a resumed run keeps it. The
rates, which depend on nothing but the length, are in ``training/recipe.py``.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.training.recipe import AUTO

log = logging.getLogger(__name__)


class Length(NamedTuple):
    """How long a run is.

    Attributes:
        amount: how many.
        unit: ``epochs`` or ``steps``.
    """

    amount: int
    unit: str

    def __str__(self) -> str:
        return f"{self.amount} {self.unit if self.amount > 1 else self.unit.removesuffix('s')}"


def length_of(config: DictConfig) -> Length:
    """How long the run that the configuration describes is."""
    epochs, steps = config.trainer.max_epochs, config.trainer.max_steps
    return Length(steps, "steps") if epochs == -1 else Length(epochs, "epochs")


def estimated_steps(config: DictConfig, num_images: int) -> int:
    """Optimizer steps of the run that the configuration describes."""
    amount, unit = length_of(config)
    steps = amount * steps_per_epoch(config, num_images) if unit == "epochs" else amount
    return min(steps, config.trainer.max_steps) if config.trainer.max_steps > 0 else steps


def steps_per_epoch(config: DictConfig, num_images: int) -> int:
    """Optimizer steps of an epoch of so many images."""
    return max(num_images // config.recipe.total_batch_size, 1)


def keep_given_length(config: DictConfig, given: set[str]) -> None:
    """Take the least number of steps away where somebody has said how long the run is.

    Args:
        config: as composed, with its interpolations.
        given: keys of the command line.
    """
    follows = OmegaConf.is_interpolation(config.trainer, "max_epochs") and OmegaConf.is_interpolation(
        config.recipe, "epochs"
    )
    if "recipe.least_steps" not in given and ("model.epochs" in given or not follows):
        config.recipe.least_steps = 0


def settle_length(config: DictConfig, trainer: Trainer, num_images: int) -> None:
    """Give a run on a small set the steps that it needs, and validate it after a number of steps that is worth it.

    Args:
        config: of the run. Its length is changed where it was not given; see :func:`keep_given_length`.
        trainer: which has the same changed.
        num_images: of the training set.
    """
    steps, least = steps_per_epoch(config, num_images), config.recipe.least_steps
    amount, unit = length_of(config)
    if unit == "epochs" and amount * steps < least and config.trainer.max_steps == -1:
        epochs = math.ceil(least / steps)
        reason = (
            f"{amount} epochs of {num_images} images would be {amount * steps:,} steps, and recipe.least_steps={least}"
        )
        log.info("trainer.max_epochs = %d: %s", epochs, reason)
        config.trainer.max_epochs = epochs
        trainer.fit_loop.max_epochs = epochs
    if config.trainer.check_val_every_n_epoch == AUTO:
        interval = validation_interval(config, num_images) if is_short(config, num_images) else 1
        if interval > 1:
            log.info("trainer.check_val_every_n_epoch = %d: an epoch has only %d steps", interval, steps)
        config.trainer.check_val_every_n_epoch = trainer.check_val_every_n_epoch = interval


def validation_interval(config: DictConfig, num_images: int) -> int:
    """After how many epochs a run is validated: 50 steps or so, but 20 times at least, and after the last epoch."""
    amount, unit = length_of(config)
    steps = steps_per_epoch(config, num_images)
    epochs = amount if unit == "epochs" else math.ceil(amount / steps)
    most = max(1, min(50 // steps, epochs // 20))
    return next(n for n in range(most, 0, -1) if epochs % n == 0)


def settle_loss(config: DictConfig, num_images: int) -> None:
    """Give a short run with a new decoder a loss of the classes with which it begins to learn at once.

    Varifocal loss weighs a match by the IoU that its box has reached, and what is not matched by the square of its
    score. Both are near 0 for the first some hundred steps of a new decoder, whether the backbone is pretrained or not.

    Args:
        config: of the run, whose loss is changed where it is ``auto``.
        num_images: of the training set.
    """
    criterion = config.model.criterion
    if criterion.classification != AUTO:
        return
    if config.init_from or not is_short(config, num_images):
        criterion.classification = "varifocal"
        return
    criterion.classification = "mal"
    if criterion.gamma is None:
        criterion.gamma = config.recipe.short_run.new_decoder_gamma
    reason = "varifocal loss gives a decoder that is new little to learn in the first steps, and the run is short"
    log.info("model.criterion.classification = mal, with gamma = %g: %s", criterion.gamma, reason)


def is_short(config: DictConfig, num_images: int) -> bool:
    """Whether the run has too few steps for the paper's values."""
    return estimated_steps(config, num_images) < config.recipe.short_run.below_steps


def augmentation_schedule(
    schedule: AugmentationSchedule, config: DictConfig, num_images: int, pretrained: bool
) -> AugmentationSchedule:
    """The schedule of the augmentation, laid over the length of the run.

    Args:
        schedule: as configured.
        config: of the run.
        num_images: of the training set.
        pretrained: whether any weights are.
    """
    amount, unit = length_of(config)
    schedule = schedule.lasting(amount if unit == "epochs" else math.ceil(amount / steps_per_epoch(config, num_images)))
    if pretrained or not is_short(config, num_images):
        return schedule
    short, epochs = config.recipe.short_run, schedule.max_epochs
    last = max(min(int(short.from_scratch_augmentation_share * epochs), epochs - short.from_scratch_plain_epochs), 0)
    stopped = schedule.stopped_by(last)
    if ended := stopped.ends_earlier_than(schedule):
        reason = (
            f"half of it, and recipe.short_run.from_scratch_plain_epochs={short.from_scratch_plain_epochs}, are plain"
        )
        until = f"only until epoch {last} of {epochs}" if last else "off"
        log.info("a short run from scratch: %s %s (%s)", ", ".join(ended), until, reason)
    return stopped
