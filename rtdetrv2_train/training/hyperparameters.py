"""The settings of a run beside its result, for TensorBoard's tab that compares runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.evaluation.metrics import CocoMetrics

_SECTIONS = ("seed", "recipe", "data", "trainer", "init_from")


def log_hyperparameters(loggers: Sequence[Logger], config: DictConfig, metrics: CocoMetrics) -> None:
    """Write the settings that one would compare, each under its key, and the final metrics of the run."""
    chosen = {section: OmegaConf.to_container(config, resolve=True)[section] for section in _SECTIONS}  # type: ignore[index, call-overload]
    settings = {"model": config.model.name, **dict(_leaves(chosen))}
    results = {f"final/{name}": getattr(metrics, name) for name in ("AP", "AP50", "AP75", "AR100")}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings, results)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is a plain value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", "none" if value is None else value
