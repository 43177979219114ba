"""Which classes a file may name: a run's folder that somebody sends must not be able to call just anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rtdetrv2_train.errors import UserError

_OURS = (
    "rtdetrv2_train.data.augment.geometric.HorizontalFlip",
    "rtdetrv2_train.data.augment.geometric.IoUCrop",
    "rtdetrv2_train.data.augment.geometric.ZoomOut",
    "rtdetrv2_train.data.augment.photometric.PhotometricDistortion",
    "rtdetrv2_train.data.loading.datamodule.CocoDataModule",
    "rtdetrv2_train.data.shapes.ShapesDataModule",
    "rtdetrv2_train.loss.criterion.Criterion",
    "rtdetrv2_train.loss.matcher.HungarianMatcher",
    "rtdetrv2_train.training.callbacks.augmentation_log.AugmentationLog",
    "rtdetrv2_train.training.callbacks.checkpointing.Checkpointing",
    "rtdetrv2_train.training.callbacks.curves.Curves",
    "rtdetrv2_train.training.callbacks.ema.EMA",
    "rtdetrv2_train.training.callbacks.history.History",
    "rtdetrv2_train.training.callbacks.nan_guard.NanGuard",
    "rtdetrv2_train.training.callbacks.pictures.ValidationPictures",
    "rtdetrv2_train.training.callbacks.progress.Progress",
    "rtdetrv2_train.training.callbacks.pruning.Pruning",
    "rtdetrv2_train.training.callbacks.resume.ResumeAdjustments",
    "rtdetrv2_train.training.recipe.Recipe",
    "rtdetrv2_train.training.recipe.ShortRun",
)
_OF_LIBRARIES = (
    "datetime.timedelta",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.MLFlowLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.plugins.environments.SLURMEnvironment",
    "lightning.pytorch.strategies.DDPStrategy",
    "optuna.pruners.HyperbandPruner",
    "optuna.pruners.MedianPruner",
    "optuna.pruners.NopPruner",
)
TRUSTED_CLASSES = frozenset((*_OURS, *_OF_LIBRARIES))
"""The classes that ``conf/`` names in the sections that a run saves; besides them, transforms of Albumentations."""

_TRANSFORM = re.compile(r"albumentations\.[A-Z]\w*")


def check_classes(config: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Refuse classes that a file names, unless they are trusted or this command names them itself, at the same key.

    Args:
        config: as it would be used, plain, every interpolation resolved.
        own: as composed from ``conf/`` and the command line alone.
        source: the file, for the error.

    Raises:
        UserError: if another class, or any function, is named.
    """
    composed = dict(_targets(own, ""))
    for key, target in _targets(config, ""):
        trusted = target in TRUSTED_CLASSES or _TRANSFORM.fullmatch(str(target))
        if not trusted and composed.get(key) != target:
            raise UserError(
                f"'{source}' asks for '{target}' at {key}, which a file may not call: if you trust it, name it "
                f"yourself with +{key}={target}"
            )


def _targets(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every ``_target_``."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        if key == "_target_":
            yield f"{prefix}{key}", value
        else:
            yield from _targets(value, f"{prefix}{key}.")
