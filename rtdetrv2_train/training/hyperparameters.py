"""Hyperparameters and final metrics of a run, for TensorBoard's HPARAMS tab."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.evaluation.metrics import CocoMetrics

_SECTIONS = ("seed", "recipe", "data", "trainer", "init_from")


def log_hyperparameters(loggers: Sequence[Logger], config: DictConfig, metrics: CocoMetrics) -> None:
    """Log the settings that differ between runs, each under its configuration key, and the final metrics."""
    chosen = {section: OmegaConf.to_container(config, resolve=True)[section] for section in _SECTIONS}  # type: ignore[index, call-overload]
    settings = {"model": config.model.name, **dict(_leaves(chosen))}
    shown = ("AP", "AP50", "AP75", "AR100")
    results = {f"final/{name}": value for name, value in metrics.numbers.items() if name in shown}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, results)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry that is neither a mapping nor a list."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", "none" if value is None else value
