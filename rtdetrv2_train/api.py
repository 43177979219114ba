"""The library: what ``from rtdetrv2_train import ...`` offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rtdetrv2_train.checkpoints.loading import LoadReport, load_weights
from rtdetrv2_train.commands import load_command
from rtdetrv2_train.commands.preflight import check_settings
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.detector import Detector, Prediction, predict
from rtdetrv2_train.inference.loading import load_detector
from rtdetrv2_train.inference.predicting import predict_source
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.model.reparameterisation import fuse
from rtdetrv2_train.runs.configuration import build, composed
from rtdetrv2_train.runs.model_configuration import configured_architecture, model_config, paper_loss
from rtdetrv2_train.runs.overrides import as_typed
from rtdetrv2_train.types import Targets

if TYPE_CHECKING:
    from rtdetrv2_train.commands.train import TrainedRun
    from rtdetrv2_train.evaluation.metrics import CocoMetrics

__all__ = [
    "Architecture",
    "Criterion",
    "Detector",
    "LoadReport",
    "ModelOutput",
    "Prediction",
    "RTDETRv2",
    "Targets",
    "UserError",
    "build_criterion",
    "build_model",
    "evaluate",
    "fuse",
    "load_detector",
    "load_weights",
    "predict",
    "predict_source",
    "train",
]


def train(*overrides: str) -> TrainedRun:
    """Train a detector, as ``rtdetrv2 train`` does.

    Args:
        overrides: as on the command line: ``"model=r18vd"``, ``"data.root=datasets/mine"``.

    Returns:
        the run's folder and the metrics of its best epoch.

    Raises:
        UserError: if a setting, a path or a file is wrong.
    """
    given = as_typed(overrides)
    with composed("train", given) as config:
        check_settings(config, "train")
        return cast("TrainedRun", load_command("train").train(config, given))


def evaluate(*overrides: str) -> CocoMetrics:
    """Measure a detector, as ``rtdetrv2 eval`` does.

    Args:
        overrides: as on the command line: ``"run=runs/r18vd"``, ``"trainer=cpu"``.

    Returns:
        the twelve numbers of the COCO benchmark and those of each class.

    Raises:
        UserError: if a setting, a path or a file is wrong.
    """
    given = as_typed(overrides)
    with composed("eval", given) as config:
        check_settings(config, "eval")
        return cast("CocoMetrics", load_command("evaluate").evaluate(config, given))


def build_model(
    name: str = "r50vd", num_classes: int = 80, image_size: tuple[int, int] | None = None, **decoder_options: Any
) -> RTDETRv2:
    """A model with random weights, in training mode.

    Args:
        name: a scale or an ablation: a file of ``conf/model`` or ``conf/experiment``, such as ``r18vd_dsp``.
        num_classes: number of classes C.
        image_size: (height, width) that it is meant for, multiples of 32; None for the configuration's. It takes images
            of any size; anchors of this one are kept in its state dict.
        decoder_options: keys of ``DecoderConfig`` that differ from the configuration, such as ``num_denoising=0``,
            ``num_eval_layers=3``, ``num_points=[2, 4, 6]``, ``sampling="discrete"``, ``num_queries=100``.

    Returns:
        a module that maps images ``[B, 3, H, W]``, and targets in training, to a :class:`ModelOutput`.

    Raises:
        UserError: if there is no such model or option, or a value does not fit.
    """
    return RTDETRv2(configured_architecture(model_config(name), num_classes, image_size, **decoder_options))


def build_criterion(name: str = "r50vd", num_classes: int | None = None) -> Criterion:
    """The loss that a model trains with.

    Args:
        name: see :func:`build_model`.
        num_classes: not needed, as the loss reads the number of classes off the logits; accepted so that model and loss
            can be built with the same arguments.

    Returns:
        a module that maps the output of a model in training mode and the targets to weighted terms, whose sum is the
        loss.

    Raises:
        UserError: if there is no such model, or the number of classes is not positive.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"num_classes={num_classes} must be at least 1")
    return cast(Criterion, build(paper_loss(model_config(name).criterion)))
