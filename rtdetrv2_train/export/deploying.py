"""Exporting for deployment: record the graph, write it, open it in its runtime, compare, describe it on a card."""

from __future__ import annotations

import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.errors import UserError, check_number
from rtdetrv2_train.export.formats import FORMATS, Format, Job
from rtdetrv2_train.export.graph import Recorded, Shape, check_size, record
from rtdetrv2_train.export.onnx import OPSET
from rtdetrv2_train.export.probe import first_difference
from rtdetrv2_train.export.verification import TOLERANCES, compared
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.export_card import ExportCard, Graph, Precision
from rtdetrv2_train.inference.exported import detector_of
from rtdetrv2_train.inference.runtimes import RUNTIMES, Session, open_model, require
from rtdetrv2_train.model.architecture import COARSEST_STRIDE
from rtdetrv2_train.model.decoder import DecoderLayer
from rtdetrv2_train.model.deformable_attention import SamplingMethod

_TIMED = 10


@dataclass(frozen=True)
class Wish:
    """What is to be exported.

    Attributes:
        format: one of :data:`FORMATS`.
        graph: ``raw`` or ``end_to_end`` (see `DetectionGraph`).
        shape: what of the input is fixed.
        precision: ``float32``, ``float16`` or ``int8``.
        sampling: of the decoder; None: the model's own.
        num_queries: None: the model's number.
        opset: version of ONNX's operators.
    """

    format: str
    graph: Graph = "raw"
    shape: Shape = field(default_factory=Shape)
    precision: Precision = "float32"
    sampling: SamplingMethod | None = None
    num_queries: int | None = None
    opset: int = OPSET

    @property
    def name(self) -> str:
        """A folder's name: the format, and what is not as usual."""
        parts = [self.format, self.precision if self.precision != "float32" else "", self.sampling or ""]
        return "-".join(part for part in (*parts, "end_to_end" if self.graph == "end_to_end" else "") if part)


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported model, open.

    Attributes:
        path: its file.
        card: what is known about it; saved beside the file.
        detector: it, in its runtime; None where that does not run on this system.
        reference: the same graph in PyTorch.
    """

    path: Path
    card: ExportCard
    detector: Detector | None
    reference: Detector


def deploy(
    detector: Detector,
    wish: Wish,
    output: Path,
    images: Sequence[ImageArray],
    calibration: Callable[[], Iterable[NDArray[np.float32]]] = tuple,
) -> Exported:
    """Write a detector for a runtime, and make sure that it finds the same there.

    Args:
        detector: with its PyTorch model, which stays as it was.
        wish: what to write.
        output: the folder to write in, or the file where the name has the format's suffix.
        images: uint8 ``[H, W, C]``, what to compare on.
        calibration: gives the inputs for int8, float32 ``[1, C, H, W]`` in [0, 1].

    Raises:
        UserError: if the format cannot have what is wished for, a package is missing, or the exported model finds
            something else; the message names the first layer that differs.
    """
    kind = checked(wish)
    runtime = RUNTIMES[wish.format]
    path = output if output.suffix == runtime.suffix else output / f"model{runtime.suffix}"
    detector = replace(detector, image_size=wish.shape.image_size or detector.image_size)
    recorded = record(detector, wish.graph, wish.shape, wish.precision, wish.sampling, wish.num_queries)
    letterbox = detector.letterbox if wish.graph == "end_to_end" else None
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = wish.shape.batch or 1
    reference = replace(detector, model=recorded.module.model)
    card = _card(detector, wish, recorded)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:  # until it is known to be right
        job = Job(
            recorded,
            Path(folder, path.name),
            detector.image_size,
            wish.opset,
            lambda: (inputs.repeat(batch, 0) for inputs in calibration()),
            letterbox,
        )
        kind.write(job)
        if runtime.runs_here:
            session = open_model(job.path, card)
            card = replace(card, verified=_verified(detector_of(session, card), reference, job, card, images, session))
        card.save(job.path)
        for written in Path(folder).iterdir():
            _move(written, path.parent / written.name)
    opened = detector_of(open_model(path, card), card) if runtime.runs_here else None
    return Exported(path, card, opened, reference)


def _move(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another one."""
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)


def checked(wish: Wish) -> Format:
    """The format that is wished for, if it can have the rest.

    Raises:
        UserError: if it cannot, or a package is missing.
    """
    kind, runtime = FORMATS[wish.format], RUNTIMES[wish.format]
    check_size(wish.shape.image_size)
    if wish.shape.batch is not None:
        check_number("batch", wish.shape.batch, 1, others=("dynamic",))
    check_number("opset", wish.opset, 1)
    if wish.opset != OPSET and not kind.through_onnx:
        raise UserError(f"opset={wish.opset} has no effect on format={wish.format}: leave it out")
    if wish.num_queries is not None:
        check_number("num_queries", wish.num_queries, 1)
    if wish.precision not in kind.precisions:
        able = [name for name, other in FORMATS.items() if wish.precision in other.precisions]
        raise UserError(
            f"format={wish.format} cannot have precision={wish.precision}: use {' or '.join(kind.precisions)}"
            + (f", or format={' or '.join(able)}" if able else "")
        )
    if wish.graph == "end_to_end":
        if not kind.end_to_end:
            able = [name for name, other in FORMATS.items() if other.end_to_end]
            raise UserError(f"format={wish.format} resizes no images: use graph=raw, or format={' or '.join(able)}")
        if wish.shape.image_size is None:
            raise UserError("graph=end_to_end resizes images to one size: leave size=dynamic out")
    for key, fixed, can in (
        ("batch", wish.shape.batch, kind.dynamic_batch),
        ("size", wish.shape.image_size, kind.dynamic_size),
    ):
        if fixed is None and not can:
            raise UserError(f"format={wish.format} needs a fixed {key}: give {key}= a value instead of dynamic")
    require((*kind.packages, *runtime.packages), f"format={wish.format}", runtime.extra)
    if wish.precision == "int8":
        require(kind.int8_packages, f"format={wish.format} precision=int8", runtime.extra)
    return kind


def _card(detector: Detector, wish: Wish, recorded: Recorded) -> ExportCard:
    decoder = recorded.module.model.decoder
    inputs = ("images", "threshold") if wish.graph == "end_to_end" else recorded.input_names
    packages = {"torch", "numpy", *FORMATS[wish.format].packages, *RUNTIMES[wish.format].packages}
    return ExportCard(
        format=wish.format,
        graph=wish.graph,
        precision=wish.precision,
        sampling=cast(DecoderLayer, decoder.layers[0]).cross_attn.method,
        decoder_layers=len(decoder.layers),
        num_queries=decoder.num_queries,
        batch=wish.shape.batch,
        fixed_size=wish.shape.image_size is not None,
        image_size=detector.image_size,
        letterbox=detector.letterbox,
        pixel_range=detector.pixel_range,
        threshold=detector.threshold,
        class_names=detector.class_names,
        category_ids=detector.category_ids,
        input_names=inputs,
        output_names=recorded.output_names,
        versions={"python": platform.python_version(), **{name: _version(name) for name in sorted(packages)}},
        channels=detector.channels,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _verified(
    found: Detector, expected: Detector, job: Job, card: ExportCard, images: Sequence[ImageArray], session: Session
) -> dict[str, Any]:
    """Compare at every batch and size that the card promises, and time one call."""
    tolerance = TOLERANCES[card.precision, card.sampling]
    sizes: dict[str, Any] = {}
    for count, size in _shapes(card, len(images)):
        some = [images[index % len(images)] for index in range(count)]
        agreement = compared(replace(expected, image_size=size), replace(found, image_size=size), some)
        name = f"{count} x {size[0]} x {size[1]}"
        if not len(agreement.pixels):
            raise UserError(
                f"'{job.path.name}' cannot be compared: in PyTorch every score is NaN; export another checkpoint"
            )
        sizes[name] = agreement.summary()
        if (share := agreement.share(tolerance)) < tolerance.share:
            layer = first_difference(job, card, FORMATS[card.format].write)
            raise UserError(
                f"'{job.path.name}' does not find what PyTorch finds: {share:.0%} of the objects agree in {name} "
                f"pixels; {layer}"
            )
    return {
        "objects": sizes,
        "milliseconds": _milliseconds(session, _inputs(card, images[0])),
        "pytorch_milliseconds": _milliseconds(
            expected.model, [torch.zeros(card.batch or 1, card.channels, *card.image_size)]
        ),
        "megabytes": round(sum(file.stat().st_size for file in _files_of(job.path)) / 1e6, 1),
    }


def _shapes(card: ExportCard, images: int) -> list[tuple[int, tuple[int, int]]]:
    """Numbers of images and sizes to compare at: the usual one, and what a file may claim and not hold."""
    height, width = card.image_size
    shapes = [(images, (height, width))]
    if card.batch is None:
        shapes += [(1, (height, width)), (3, (height, width))]
    if not card.fixed_size:
        step = COARSEST_STRIDE
        shapes += [(1, (height + step, width)), (2, (height, width + 2 * step)), (2, (2 * height, width + step))]
    return shapes


def _inputs(card: ExportCard, image: ImageArray) -> list[NDArray[Any]]:
    """Of one call of the exported model."""
    if card.graph == "end_to_end":
        return [image[None].repeat(card.batch or 1, 0), np.array([card.threshold], np.float32)]
    return [np.zeros((card.batch or 1, card.channels, *card.image_size), np.float32)]


def _milliseconds(call: Callable[..., Any], inputs: Sequence[Any]) -> float:
    """Median time of one call, one after the other."""
    seconds = []
    for _ in range(_TIMED + 2):
        began = time.perf_counter()
        with torch.inference_mode():
            call(*inputs)
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds[2:]), 2)


def _files_of(path: Path) -> list[Path]:
    """All that was written to the folder of a model's file."""
    return [file for file in path.parent.rglob("*") if file.is_file()]
