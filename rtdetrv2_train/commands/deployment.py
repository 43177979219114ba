"""What ``rtdetrv2 export`` does for a runtime: images of the run, the export, what came out."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from rtdetrv2_train.commands.run_data import data_of_run
from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.export.calibration import CALIBRATION_IMAGES, chosen_images, images_of, inputs_of
from rtdetrv2_train.export.deploying import Exported, Wish, deploy
from rtdetrv2_train.export.formats import FORMATS
from rtdetrv2_train.export.graph import Shape
from rtdetrv2_train.export.verification import AP_TOLERANCES, made_up_images
from rtdetrv2_train.inference.detector import Detector, make_detector
from rtdetrv2_train.inference.export_card import Graph, Precision
from rtdetrv2_train.inference.measuring import collect_detections
from rtdetrv2_train.inference.runtimes import RUNTIMES
from rtdetrv2_train.inference.sources import open_source
from rtdetrv2_train.model.deformable_attention import SamplingMethod
from rtdetrv2_train.model.detector import RTDETRv2

log = logging.getLogger(__name__)

_COMPARED = 8  # images
_DYNAMIC = "dynamic"
_CHOICES: dict[str, tuple[Any, ...]] = {
    "graph": get_args(Graph),
    "precision": get_args(Precision),
    "sampling": (None, *get_args(SamplingMethod)),
    "verify": ("images", "ap"),
}


def check_choices(config: DictConfig) -> None:
    """Check the values of keys that have a few.

    Raises:
        UserError: if a value is none of them.
    """
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            names = [str(choice) for choice in choices if choice is not None]
            raise UserError(f"{key}={config[key]}: {nearest(str(config[key]), names)}use {' or '.join(names)}")


def wish_of(config: DictConfig, image_size: tuple[int, int]) -> Wish:
    """What the configuration asks for.

    Args:
        config: as composed from ``conf/export.yaml``.
        image_size: (height, width) of the model.

    Raises:
        UserError: if the size is none.
    """
    size: Any = image_size if config.size is None else config.size
    if size != _DYNAMIC:
        size = (size, size) if isinstance(size, int) else tuple(size)
        if len(size) != 2 or not all(isinstance(side, int) for side in size):
            raise UserError(f"size={config.size}: give [height,width] in pixels, or dynamic")
    return Wish(
        format=config.format,
        graph=config.graph,
        shape=Shape(None if config.batch == _DYNAMIC else config.batch, None if size == _DYNAMIC else size),
        precision=config.precision,
        sampling=config.sampling,
        num_queries=config.num_queries,
        opset=config.opset,
    )


def deploy_and_print(detector: Detector, wish: Wish, output: Path, run_folder: Path | None, config: DictConfig) -> Path:
    """Export, compare on images of the run, measure AP where that is asked for, and print what came out.

    Args:
        detector: what to export.
        wish: how.
        output: where to.
        run_folder: of the detector's run, if it has one.
        config: for ``images`` and ``verify``.

    Returns:
        the file written.

    Raises:
        UserError: if there are no images where they are needed, or the exported model finds something else.
    """
    data = None if config.images else _data(run_folder, needed=wish.precision == "int8" or config.verify == "ap")
    if config.verify == "ap" and data is None:
        raise UserError(
            "verify=ap needs the validation set of a run: give run= instead of checkpoint=, without images="
        )
    images, calibration = _images(detector, data, config.images, wish)
    exported = deploy(detector, wish, output, images, calibration)
    if exported.detector is None:
        print_line(f"written          {os.path.relpath(exported.path)}")
        print_line(f"not compared with PyTorch, as {RUNTIMES[wish.format].title} does not run on this system", "yellow")
        return exported.path
    if data is not None and config.verify == "ap":
        exported = _with_precision_measured(exported, exported.detector, data)
    _print(exported)
    return exported.path


def check_export(model: RTDETRv2, data: CocoDataModule, format_name: str) -> None:
    """Export a model that is about to be trained, compare it with PyTorch, and throw it away.

    Args:
        model: not changed.
        data: that it is to be trained on.
        format_name: one of :data:`FORMATS`.

    Raises:
        UserError: if it cannot be exported, or the exported model computes something else.
    """
    if format_name not in FORMATS:
        raise UserError(f"export.format={format_name}: {nearest(format_name, FORMATS)}use {' or '.join(FORMATS)}")
    detector = make_detector(copy.deepcopy(model).eval().cpu(), data.class_names, data.image_size)
    images = list(images_of(data.val_annotations, chosen_images(data.val_annotations, _COMPARED)))
    images = images or list(made_up_images(_COMPARED, data.image_size, data.channels))
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        deploy(detector, Wish(format_name, shape=Shape(1, data.image_size)), Path(folder), images)
    log.info("export: the model can be exported to %s", format_name)


def _data(run_folder: Path | None, needed: bool) -> CocoDataModule | None:
    try:
        return data_of_run(run_folder) if run_folder else None
    except UserError as error:
        if needed:
            raise
        log.warning("the run's data set cannot be used (%s): give images=FOLDER to compare on real images", error)
        return None


def _images(
    detector: Detector, data: CocoDataModule | None, folder: str | None, wish: Wish
) -> tuple[list[ImageArray], Callable[[], Iterable[NDArray[np.float32]]]]:
    """Images to compare on, and the inputs to calibrate on."""
    sized = replace(detector, image_size=wish.shape.image_size or detector.image_size)
    if folder is not None:
        source = replace(open_source(folder, arrays=detector.channels != 3), reading=detector.reading())
        some = replace(source, files=source.files[:: max(len(source.files) // CALIBRATION_IMAGES, 1)])
        frames = [frame.image for frame in islice(some, CALIBRATION_IMAGES) if frame.image is not None]
        if not frames:
            raise UserError(f"images={folder} has no image that can be read")
        return frames[:: max(len(frames) // _COMPARED, 1)][:_COMPARED], lambda: inputs_of(sized, frames)
    if data is not None:
        validation, training = data.val_annotations, data.train_annotations
        chosen = chosen_images(training)
        images = list(images_of(validation, chosen_images(validation, _COMPARED)))
        if images:
            return images, lambda: inputs_of(sized, images_of(training, chosen))
    if wish.precision == "int8":
        raise UserError("precision=int8 is calibrated on images: give images=FOLDER, or run= with its data set")
    log.warning("compared on made-up images, as there are no real ones: give images=FOLDER")
    return list(made_up_images(_COMPARED, detector.image_size, detector.channels)), tuple


def _with_precision_measured(exported: Exported, found: Detector, data: CocoDataModule) -> Exported:
    """Measure AP on the validation set, with PyTorch and with the exported model.

    Raises:
        UserError: if too much is lost.
    """
    card = exported.card
    before, after = _average_precision(exported.reference, data), _average_precision(found, data)
    card = replace(card, verified={**card.verified, "AP": after, "AP_in_pytorch": before})
    card.save(exported.path)
    if before - after > (most := AP_TOLERANCES[card.precision]):
        raise UserError(
            f"'{exported.path}' has AP {after:.4f} where PyTorch has {before:.4f}, and precision={card.precision} may "
            f"lose {most:g}: use another precision or sampling"
        )
    return replace(exported, card=card)


def _average_precision(detector: Detector, data: CocoDataModule) -> float:
    evaluator = CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids)
    collect_detections(detector, data.val_annotations, evaluator)
    return evaluator.compute().AP


def _print(exported: Exported) -> None:
    card, facts = exported.card, exported.card.verified
    usual = next(iter(facts["objects"].values()))
    runtime = RUNTIMES[card.format].title
    lines = {
        "written": os.path.relpath(exported.path),
        "size": f"{facts['megabytes']:g} MB, {card.precision}",
        "one call": f"{facts['milliseconds']:.4g} ms in {runtime}, {facts['pytorch_milliseconds']:.4g} ms in PyTorch",
        "compared": f"{len(facts['objects'])} shapes; in {usual['images']} images {usual['objects']} objects, median "
        f"difference {usual['median_pixels']:.2g} pixels, largest {usual['largest_pixels']:.2g}",
    }
    if "AP" in facts:
        lines["AP"] = f"{facts['AP']:.4f}, in PyTorch {facts['AP_in_pytorch']:.4f}"
    lines["use it"] = f"rtdetrv2 predict checkpoint={os.path.relpath(exported.path)} source=photos"
    for name, text in lines.items():
        print_line(f"{name:16} {text}")
