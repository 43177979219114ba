"""Values of a composed configuration that can be judged by themselves. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError, check_number

_STRIDE = 32


class _Number(NamedTuple):
    """What a key takes: a number from ``least`` to ``most``, or one of ``others``."""

    least: float
    most: float = float("inf")
    whole: bool = True
    others: tuple[Any, ...] = ()


# The key that another one takes its value from stands before it, so that the one that was given is named.
_NUMBERS = {
    "model.total_batch_size": _Number(1),
    "model.learning_rate": _Number(0, whole=False),
    "model.epochs": _Number(1),
    "recipe.epochs": _Number(1, others=(-1, None)),
    "recipe.least_steps": _Number(0),
    "recipe.total_batch_size": _Number(1),
    "recipe.reference_batch_size": _Number(1),
    "recipe.max_batch_size_per_device": _Number(1, others=("auto", None)),
    "recipe.second_stage_epoch": _Number(0, others=(None,)),
    "recipe.learning_rate": _Number(0, whole=False),
    "recipe.weight_decay": _Number(0, whole=False),
    "recipe.short_run.below_steps": _Number(0),
    "trainer.devices": _Number(1, others=("auto", -1)),
    "trainer.num_nodes": _Number(1),
    "trainer.max_epochs": _Number(1, others=(-1, None)),
    "trainer.max_steps": _Number(1, others=(-1,)),
    "trainer.accumulate_grad_batches": _Number(1, others=("auto",)),
    "trainer.check_val_every_n_epoch": _Number(1, others=("auto", None)),
    "trainer.log_every_n_steps": _Number(1),
    "trainer.limit_train_batches": _Number(0, whole=False, others=(None,)),
    "trainer.limit_val_batches": _Number(0, whole=False, others=(None,)),
    "callbacks.nan_guard.max_skipped_steps": _Number(0),
    "callbacks.pictures.num_images": _Number(0),
    "callbacks.checkpoint.last_every_minutes": _Number(0, whole=False, others=(None,)),
    "data.eval_batch_size": _Number(1),
    "data.num_workers": _Number(0, others=("auto",)),
    "seed": _Number(0),
    "pictures": _Number(0),
    "batch_size": _Number(1),
    "max_detections": _Number(1),
    "max_frames": _Number(1, others=(None,)),
    "num_eval_layers": _Number(1, others=(None,)),
    "threshold": _Number(0, 1, whole=False, others=("auto",)),
    "tile": _Number(32, others=(None,)),
    "overlap": _Number(0, 0.9, whole=False),
    "port": _Number(1, 65535),
}
_SWITCHES = (
    "compile",
    "gradient_checkpointing",
    "half",
    "open_browser",
    "fix",
    "trainer.sync_batchnorm",
    "data.letterbox",
)
_LISTS = ("model.multiscale", "data.multiscale", "recipe.betas")
_DEVICES = re.compile(r"\d+(, *\d+)*")  # numbers of GPUs
_ABSENT = object()


def check_values(config: DictConfig) -> None:
    """Check numbers, switches, lists and sizes; a size given as one number becomes that of a square.

    Args:
        config: as composed for any command.

    Raises:
        UserError: if a value makes no sense; the message names the key.
    """
    for key, (least, most, whole, others) in _NUMBERS.items():
        value = OmegaConf.select(config, key, default=_ABSENT)
        if value is _ABSENT or value in others or (key == "trainer.devices" and _names_devices(value)):
            continue
        check_number(key, value, least, most, whole, others)
    for key in _SWITCHES:
        value = OmegaConf.select(config, key, default=_ABSENT)
        if value is not _ABSENT and not isinstance(value, bool):
            raise UserError(f"{key} is {value!r}: give true or false")
    for key in _LISTS:
        value = OmegaConf.select(config, key)
        if value is not None and not OmegaConf.is_list(value):
            raise UserError(f"{key} is {value!r}: give a list, in brackets")
    for section in ("model", "data"):
        if OmegaConf.select(config, f"{section}.image_size") is not None:
            size = _size(f"{section}.image_size", config[section].image_size)
            if not OmegaConf.is_interpolation(config[section], "image_size"):
                config[section].image_size = size
    _check_length(config)


def _names_devices(value: Any) -> bool:
    return OmegaConf.is_list(value) or (isinstance(value, str) and _DEVICES.fullmatch(value) is not None)


def _size(key: str, value: Any) -> list[int]:
    """(height, width) in pixels."""
    sides = list(value) if OmegaConf.is_list(value) else [value, value]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise UserError(f"{key} is {value!r}: give height and width in pixels, [480,640], or one number for a square")
    if wrong := [side for side in sides if side < _STRIDE or side % _STRIDE]:
        below, above = (max(wrong[0] // _STRIDE + more, 1) * _STRIDE for more in (0, 1))
        others = f"{below} or {above}" if 0 < below < above and wrong[0] > _STRIDE else str(_STRIDE)
        raise UserError(f"{key} is {value}: sides are multiples of {_STRIDE}, try {others} instead of {wrong[0]}")
    return sides


def _check_length(config: DictConfig) -> None:
    """A run has an end; without a number of epochs it is given in steps."""
    if "trainer" not in config or "init_from" not in config:
        return
    if config.trainer.max_epochs is None:
        config.trainer.max_epochs = -1
    if config.trainer.max_epochs == -1 and config.trainer.max_steps == -1:
        raise UserError("trainer.max_epochs=-1 would train for ever: give trainer.max_steps")
