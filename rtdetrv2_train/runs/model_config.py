"""The configuration of a model by its name, composed outside a Hydra application or within one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

import rtdetrv2_train
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.model.detector import COARSEST_STRIDE, RTDETRv2


def config_folder() -> Path:
    """The folder of configuration groups: within an installed package, or beside the package in a checkout.

    Raises:
        UserError: if there is neither.
    """
    package = Path(rtdetrv2_train.__path__[0]).resolve()
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "model").is_dir():
            return folder
    raise UserError(f"the configuration that belongs to '{package}' is missing: install rtdetrv2-train again")


def model_config(name: str, image_size: tuple[int, int] | None = None, overrides: Sequence[str] = ()) -> DictConfig:
    """What ``train.py`` composes under ``model``.

    Args:
        name: a file of ``conf/model``, or else of ``conf/experiment``, such as ``r18vd_sp1``.
        image_size: (height, width) of the input in pixels; None for that of the configuration.
        overrides: more, as on the command line.

    Raises:
        UserError: if there is no such model, or the size is not a multiple of 32.
    """
    folder = config_folder()
    groups = {group: sorted(path.stem for path in (folder / group).glob("*.yaml")) for group in ("model", "experiment")}
    group = next((group for group, names in groups.items() if name in names), None)
    if group is None:
        known = sorted({*groups["model"], *groups["experiment"]})
        raise UserError(f"there is no model '{name}': {nearest(name, known)}use one of {', '.join(known)}")
    chosen = [f"{group}={name}", *overrides]
    if image_size is not None:
        if len(image_size) != 2 or any(side <= 0 or side % COARSEST_STRIDE for side in image_size):
            raise UserError(
                f"image_size must be (height, width), multiples of {COARSEST_STRIDE}, not {tuple(image_size)}"
            )
        chosen.append(f"model.image_size=[{image_size[0]},{image_size[1]}]")
    with _hydra_of_our_own(folder):
        return cast(DictConfig, compose("train", overrides=chosen).model)


def build_detector(architecture: DictConfig | Mapping[str, Any], num_classes: int) -> RTDETRv2:
    """The model of ``conf/model/*.yaml``'s ``architecture`` for a number of classes."""
    filled = OmegaConf.merge(architecture, {"decoder": {"num_classes": num_classes}})
    return cast(RTDETRv2, instantiate(filled, _convert_="all"))


def build_named(config: DictConfig, num_classes: int, **decoder_options: Any) -> RTDETRv2:
    """The model of a configuration.

    Args:
        config: as :func:`model_config` gives it.
        num_classes: number of classes.
        decoder_options: arguments of ``Decoder`` that differ from the configuration.

    Raises:
        UserError: if an option does not exist, or the model cannot be built with it.
    """
    known = sorted(str(key) for key in set(config.architecture.decoder) - {"_target_", "num_classes"})
    for option in decoder_options:
        if option not in known:
            raise UserError(f"the decoder has no option '{option}': {nearest(option, known)}it has {', '.join(known)}")
    architecture = OmegaConf.merge(config.architecture, {"decoder": decoder_options})
    try:
        return build_detector(cast(DictConfig, architecture), num_classes)
    except HydraException as error:
        if not isinstance(error.__cause__, ValueError | TypeError):
            raise
        raise UserError(f"{config.name} cannot be built so: {error.__cause__}") from error


def use_decoder_layers(model: RTDETRv2, num_eval_layers: int | None) -> None:
    """Predict with the first layers of the decoder only; None for as many as the model was configured with.

    Raises:
        UserError: if the decoder has fewer.
    """
    if num_eval_layers is None:
        return
    available = len(model.decoder.decoder.layers)
    if not 1 <= num_eval_layers <= available:
        raise UserError(f"num_eval_layers={num_eval_layers}: this model's decoder has layers 1 to {available}")
    model.decoder.num_eval_layers = num_eval_layers


@contextmanager
def _hydra_of_our_own(folder: Path) -> Iterator[None]:
    """Initialise Hydra on our configuration, and leave an application around us as it was."""
    running, version = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running
        VersionBase.instance().version_base = version
