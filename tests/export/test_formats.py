"""A model written for another runtime gives the numbers that it gives in PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_train import build_model
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.formats import FORMATS, Job
from rtdetrv2_train.export.graph import Recorded, Shape, record
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.export_card import ExportCard, Precision
from rtdetrv2_train.inference.runtimes import RUNTIMES, Session, open_model
from rtdetrv2_train.model.deformable_attention import SamplingMethod
from tests.support import fill_with_scores, largest_difference

SIZE = (64, 96)
PACKAGES = {
    "pt2": ("torch",),
    "aoti": ("torch",),
    "litert": ("litert_torch", "ai_edge_litert"),
    "executorch": ("executorch",),
    "coreml": ("coremltools",),
    "mnn": ("MNN", "onnx", "onnxscript"),
}
SLOW = ("aoti", "litert", "executorch", "coreml")


def formats(*left_out: str) -> list[object]:
    names = [name for name in PACKAGES if name not in left_out]
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


def card_of(
    name: str, shape: Shape, precision: Precision = "float32", sampling: SamplingMethod = "default"
) -> ExportCard:
    return ExportCard(
        format=name,
        graph="raw",
        precision=precision,
        sampling=sampling,
        decoder_layers=2,
        num_queries=30,
        batch=shape.batch,
        fixed_size=shape.image_size is not None,
        image_size=SIZE,
        letterbox=False,
        pixel_range=None,
        threshold=0.5,
        class_names=("a", "b", "c"),
        category_ids=(),
        input_names=("images",),
        output_names=("logits", "boxes"),
    )


def written(
    name: str,
    path: Path,
    shape: Shape | None = None,
    precision: Precision = "float32",
    sampling: SamplingMethod = "default",
) -> tuple[Recorded, Session]:
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    torch.manual_seed(0)
    model = build_model("nano", num_classes=3, image_size=SIZE)
    fill_with_scores(model)
    shape = shape or Shape(1, SIZE)
    recorded = record(Detector(model.eval(), ("a", "b", "c"), SIZE), "raw", shape, precision, sampling)
    path = path.with_suffix(RUNTIMES[name].suffix)
    FORMATS[name].write(Job(recorded, path, SIZE, 18, tuple, None))
    return recorded, open_model(path, card_of(name, shape, precision, sampling))


def difference(recorded: Recorded, session: Session, batch: int = 1, size: tuple[int, int] = SIZE) -> float:
    """Largest difference of scores and boxes, of an input whose memory is not in the order of its dimensions."""
    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = recorded.module(images)
    found = [torch.from_numpy(np.array(array)) for array in session(images.numpy())]
    assert [array.shape for array in found] == [tensor.shape for tensor in expected]
    pairs = [torch.cat([logits.sigmoid(), boxes], 2).numpy() for logits, boxes in (found, expected)]
    return max(largest_difference(ours, theirs) for ours, theirs in zip(*pairs, strict=True))


@pytest.mark.parametrize("sampling", ["default", "discrete"])
@pytest.mark.parametrize("name", formats("coreml"))
def test_another_runtime_gives_the_same_objects(name: str, sampling: SamplingMethod, tmp_path: Path) -> None:
    assert difference(*written(name, tmp_path / "model", sampling=sampling)) < 1e-3


def test_half_precision_weights_of_mnn_give_nearly_the_same(tmp_path: Path) -> None:
    recorded, session = written("mnn", tmp_path / "model", precision="float16")
    assert 1e-6 < difference(recorded, session) < 2e-2


@pytest.mark.parametrize("name", formats("litert", "executorch", "coreml", "aoti"))
def test_any_batch_where_it_is_left_open(name: str, tmp_path: Path) -> None:
    recorded, session = written(name, tmp_path / "model", Shape(None, SIZE))
    assert difference(recorded, session, 1) < 1e-3
    assert difference(recorded, session, 3) < 1e-3


@pytest.mark.parametrize("name", formats("litert", "executorch", "coreml", "mnn", "aoti"))
def test_any_size_where_it_is_left_open(name: str, tmp_path: Path) -> None:
    recorded, session = written(name, tmp_path / "model", Shape(None, None))
    assert difference(recorded, session, 1, (64, 64)) < 1e-3
    assert difference(recorded, session, 2, (128, 160)) < 1e-3


@pytest.mark.slow
def test_a_compiled_package_refuses_another_size_than_its_own(tmp_path: Path) -> None:
    _, session = written("aoti", tmp_path / "model")
    for shape in ((1, 3, 32, 96), (1, 3, 96, 64), (2, 3, 64, 96)):
        with pytest.raises(ValueError, match=r"takes float32 images \[1, 3, 64, 96\]"):
            session(np.zeros(shape, np.float32))


@pytest.mark.slow
def test_a_package_of_core_ml_keeps_names_and_opens_on_macos_alone(tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    if sys.platform == "darwin":
        pytest.skip("it opens there")
    with pytest.raises(UserError, match="Core ML runs on macOS alone"):
        written("coreml", tmp_path / "model")
    description = coremltools.utils.load_spec(str(tmp_path / "model.mlpackage")).description
    assert [item.name for item in description.input] == ["images"]
    assert [item.name for item in description.output] == ["logits", "boxes"]


@pytest.mark.parametrize("name", ["pt2", "aoti", "litert", "executorch", "mnn"])
def test_a_file_that_is_no_model_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot open"):
        open_model(path, card_of(name, Shape(1, SIZE)))
