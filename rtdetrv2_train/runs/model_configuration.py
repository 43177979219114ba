"""The configuration of a model by its name, composed outside a Hydra application or within one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.runs.configuration import own_hydra, plain
from rtdetrv2_train.runs.folder import config_folder


def model_config(name: str) -> DictConfig:
    """What ``train.py`` composes under ``model``.

    Args:
        name: a file of ``conf/model``, or else of ``conf/experiment``, such as ``r18vd_sp1``.

    Raises:
        UserError: if there is no such model.
    """
    folder = config_folder()
    groups = {group: sorted(path.stem for path in (folder / group).glob("*.yaml")) for group in ("model", "experiment")}
    group = next((group for group, names in groups.items() if name in names), None)
    if group is None:
        known = sorted({*groups["model"], *groups["experiment"]})
        raise UserError(f"there is no model '{name}': {nearest(name, known)}use one of {', '.join(known)}")
    from hydra import compose

    with own_hydra():
        return cast(DictConfig, compose("train", overrides=[f"{group}={name}"]).model)


def model_names() -> list[str]:
    """Names of the files of ``conf/model``."""
    return sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))


def paper_loss(criterion: DictConfig) -> DictConfig:
    """The configuration of a loss in which ``auto`` is the paper's, varifocal loss."""
    varifocal = {"classification": "varifocal"} if criterion.classification == "auto" else {}
    return cast(DictConfig, OmegaConf.merge(criterion, varifocal))


def configured_architecture(
    config: DictConfig,
    num_classes: int = 80,
    image_size: Sequence[int] | None = None,
    in_channels: int = 3,
    **decoder_options: Any,
) -> Architecture:
    """The architecture of a configuration.

    Args:
        config: of a model, ``conf/model/*.yaml``.
        num_classes: number of classes.
        image_size: (height, width) of the input in pixels; None for that of the configuration.
        in_channels: channels of the input.
        decoder_options: keys of ``architecture.decoder`` that differ from the configuration.

    Raises:
        UserError: if an option does not exist, or the model cannot be built with it.
    """
    values = plain(config.architecture)
    values["decoder"] |= decoder_options
    values |= {"num_classes": num_classes, "image_size": list(image_size or config.image_size)}
    values["in_channels"] = in_channels
    return Architecture.from_dict(values)
