"""The formats that a detector can be written in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.huggingface import export_huggingface
from rtdetrv2_train.export.reference import export_reference
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.export_card import Precision

CONVERSIONS: dict[str, Callable[[Detector, Path], dict[str, object]]] = {
    "huggingface": export_huggingface,
    "reference": export_reference,
}
"""Weights for other training code: writes a detector to a path, and gives what to tell the user, the path first."""


@dataclass(frozen=True)
class Job:
    """What a format's writer is asked for.

    Attributes:
        recorded: the graph.
        path: of the file to write.
        image_size: (height, width) of the model, where the graph leaves it open.
        opset: version of ONNX's operators, where the format has them.
        calibration: gives the inputs for int8, float32 ``[B, C, H, W]`` with B the fixed batch, or 1.
        letterbox: for an end-to-end graph: whether images keep their aspect ratio; None for a raw graph.
    """

    recorded: Recorded
    path: Path
    image_size: tuple[int, int]
    opset: int
    calibration: Callable[[], Iterable[NDArray[np.float32]]]
    letterbox: bool | None


@dataclass(frozen=True)
class Format:
    """A format that a runtime opens.

    Attributes:
        write: writes the file.
        packages: what writing needs, beside the runtime's; names of modules.
        int8_packages: what int8 needs besides.
        precisions: that it can have.
        through_onnx: whether ONNX's operators are of the version that is asked for.
        end_to_end: whether images of any size can be resized in the graph.
        dynamic_batch: whether the batch can be left open.
        dynamic_size: whether height and width can.
    """

    write: Callable[[Job], None]
    packages: tuple[str, ...] = ()
    int8_packages: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("float32",)
    through_onnx: bool = False
    end_to_end: bool = False
    dynamic_batch: bool = False
    dynamic_size: bool = False


def _onnx(job: Job) -> None:
    from rtdetrv2_train.export.onnx import write_onnx

    write_onnx(job.recorded, job.path, job.opset, job.calibration(), job.letterbox)


def _openvino(job: Job) -> None:
    from rtdetrv2_train.export.openvino import write_openvino

    write_openvino(job.recorded, job.path, job.calibration(), job.letterbox)


def _pt2(job: Job) -> None:
    from rtdetrv2_train.export.pt2 import write_pt2

    write_pt2(job.recorded, job.path)


def _aoti(job: Job) -> None:
    from rtdetrv2_train.export.pt2 import write_aoti

    write_aoti(job.recorded, job.path)


def _litert(job: Job) -> None:
    from rtdetrv2_train.export.litert import write_litert

    write_litert(job.recorded, job.path)


def _executorch(job: Job) -> None:
    from rtdetrv2_train.export.executorch import write_executorch

    write_executorch(job.recorded, job.path)


def _coreml(job: Job) -> None:
    from rtdetrv2_train.export.coreml import write_coreml

    write_coreml(job.recorded, job.path)


def _mnn(job: Job) -> None:
    from rtdetrv2_train.export.mnn import write_mnn

    with _onnx_file(job) as file:
        write_mnn(file, job.path, job.recorded.precision)


def _tensorrt(job: Job) -> None:
    from rtdetrv2_train.export.tensorrt import write_tensorrt

    with _onnx_file(job) as file:
        channels = job.recorded.example[0].shape[1]
        write_tensorrt(file, job.path, job.recorded.shape, job.image_size, job.recorded.precision, channels)


@contextmanager
def _onnx_file(job: Job) -> Iterator[Path]:
    """The graph in float32, for converters that read ONNX."""
    from rtdetrv2_train.export.onnx import write_onnx

    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        file = Path(folder, "model.onnx")
        write_onnx(replace(job.recorded, precision="float32"), file, job.opset, (), None)
        yield file


FORMATS: dict[str, Format] = {
    "onnx": Format(
        _onnx,
        packages=("onnx", "onnxscript"),
        through_onnx=True,
        precisions=("float32", "float16", "int8"),
        end_to_end=True,
        dynamic_batch=True,
        dynamic_size=True,
    ),
    "openvino": Format(
        _openvino,
        packages=("onnx", "onnxscript"),
        int8_packages=("nncf",),
        precisions=("float32", "float16", "int8"),
        end_to_end=True,
        dynamic_batch=True,
        dynamic_size=True,
    ),
    "pt2": Format(_pt2, dynamic_batch=True, dynamic_size=True),
    "aoti": Format(_aoti),
    "tensorrt": Format(
        _tensorrt,
        packages=("onnx", "onnxscript"),
        through_onnx=True,
        precisions=("float32", "float16"),
        dynamic_batch=True,
        dynamic_size=True,
    ),
    "litert": Format(_litert, packages=("litert_torch",)),
    "executorch": Format(_executorch),
    "coreml": Format(_coreml, precisions=("float32", "float16")),
    "mnn": Format(
        _mnn,
        packages=("onnx", "onnxscript"),
        through_onnx=True,
        precisions=("float32", "float16"),
        dynamic_batch=True,
    ),
}
"""For deployment, by name; their runtimes are in ``inference/runtimes``."""
