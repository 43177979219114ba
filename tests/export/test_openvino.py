"""OpenVINO's files find what PyTorch finds."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtdetrv2_train import build_model
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.graph import Recorded, Shape, record
from rtdetrv2_train.export.openvino import write_openvino
from rtdetrv2_train.inference.detector import Detector, make_detector
from rtdetrv2_train.inference.export_card import ExportCard, Graph, Precision
from rtdetrv2_train.inference.exported import detector_of
from rtdetrv2_train.inference.runtimes import open_model
from rtdetrv2_train.model.deformable_attention import SamplingMethod
from tests.support import fill_with_scores, made

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

SIZE = (96, 128)


@pytest.fixture(scope="module")
def detector() -> Detector:
    model = build_model("nano", 3, SIZE, num_queries=20).eval()
    fill_with_scores(model)
    return replace(make_detector(model, ("a", "b", "c")), threshold=0.3)


def written(
    detector: Detector,
    folder: Path,
    shape: Shape,
    precision: Precision = "float32",
    graph: Graph = "raw",
    sampling: SamplingMethod = "default",
    calibration: Sequence[Any] = (),
) -> tuple[Path, ExportCard, Recorded]:
    recorded = record(detector, graph, shape, precision, sampling)
    path = folder / "model.xml"
    write_openvino(recorded, path, calibration, detector.letterbox if graph == "end_to_end" else None)
    card = ExportCard(
        format="openvino",
        graph=graph,
        precision=precision,
        sampling=sampling,
        decoder_layers=3,
        num_queries=20,
        batch=shape.batch,
        fixed_size=shape.image_size is not None,
        image_size=detector.image_size,
        letterbox=detector.letterbox,
        pixel_range=None,
        threshold=detector.threshold,
        class_names=detector.class_names,
        category_ids=(),
        input_names=("images", "threshold") if graph == "end_to_end" else recorded.input_names,
        output_names=recorded.output_names,
    )
    return path, card, recorded


def differences(path: Path, card: ExportCard, recorded: Recorded, shape: tuple[int, int, int]) -> list[float]:
    """Largest differences of logits and boxes from PyTorch."""
    images = made.image("image", *shape)
    expected = recorded.module(images)
    found = open_model(path, card)(images.numpy())
    return [float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found, strict=True)]


@pytest.mark.parametrize("sampling", ["default", "discrete"])
def test_one_file_takes_every_batch_and_size(detector: Detector, tmp_path: Path, sampling: SamplingMethod) -> None:
    file = written(detector, tmp_path, Shape(None, None), sampling=sampling)
    for shape in ((1, 96, 128), (2, 128, 96), (3, 64, 160), (1, 32, 32), (4, 192, 64)):
        logits, boxes = differences(*file, shape)
        assert logits < 1e-3, shape
        assert boxes < 1e-4, shape


def test_a_file_of_one_shape_says_and_keeps_it(detector: Detector, tmp_path: Path) -> None:
    path, card, recorded = written(detector, tmp_path, Shape(1, SIZE))
    model = openvino.Core().read_model(path)
    assert [list(port.shape) for port in model.inputs] == [[1, 3, 96, 128]]
    assert [port.get_names() for port in (*model.inputs, *model.outputs)] == [{"images"}, {"logits"}, {"boxes"}]
    assert str(model.input("images").node.get_layout()) == "[N,C,H,W]"
    assert max(differences(path, card, recorded, (1, *SIZE))) < 1e-3
    with pytest.raises(RuntimeError, match="shape"):
        open_model(path, card)(np.zeros((2, 3, *SIZE), np.float32))


def test_an_open_batch_is_the_only_open_dimension(detector: Detector, tmp_path: Path) -> None:
    path, card, recorded = written(detector, tmp_path, Shape(None, SIZE))
    assert str(openvino.Core().read_model(path).input("images").partial_shape) == "[?,3,96,128]"
    for batch in (1, 3):
        assert max(differences(path, card, recorded, (batch, *SIZE))) < 1e-3


def test_float16_is_half_as_large_and_close(detector: Detector, tmp_path: Path) -> None:
    whole, _, _ = written(detector, tmp_path / "whole", Shape(1, SIZE))
    path, card, recorded = written(detector, tmp_path / "half", Shape(1, SIZE), "float16")
    assert path.with_suffix(".bin").stat().st_size < 0.6 * whole.with_suffix(".bin").stat().st_size
    images = made.image("image", 1, *SIZE)
    expected, found = recorded.module(images)[0].numpy(), open_model(path, card)(images.numpy())[0]
    assert np.median(np.abs(expected - found)) < 0.02


def test_int8_is_close_and_leaves_attention_alone(detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    calibration = [made.image(f"calibration {index}", 1, *SIZE).numpy() for index in range(4)]
    calibration.append(made.image("image", 1, *SIZE).numpy())
    path, card, recorded = written(detector, tmp_path, Shape(1, SIZE), "int8", calibration=calibration)
    again, _, _ = written(detector, tmp_path / "again", Shape(1, SIZE), "int8", calibration=calibration)
    assert path.with_suffix(".bin").read_bytes() == again.with_suffix(".bin").read_bytes()
    model = openvino.Core().read_model(path)
    quantized = [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    takers = {target.get_node().get_type_name() for node in quantized for target in node.output(0).get_target_inputs()}
    assert "Convolution" in takers
    assert not takers & {"MatMul", "GridSample", "Softmax"}
    images = made.image("image", 1, *SIZE)
    expected = recorded.module(images)[0].sigmoid().numpy()
    found = 1 / (1 + np.exp(-open_model(path, card)(images.numpy())[0]))
    assert np.median(np.abs(np.sort(expected.ravel()) - np.sort(found.ravel()))) < 0.1


def test_int8_can_have_a_batch_and_resize_images(detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    calibration = [made.image(f"calibration {index}", 1, *SIZE).numpy() for index in range(2)]
    path, card, _ = written(detector, tmp_path, Shape(2, SIZE), "int8", graph="end_to_end", calibration=calibration)
    images = np.zeros((2, 50, 70, 3), np.uint8)
    labels, scores, boxes, count = open_model(path, card)(images, np.array([0.3], np.float32))
    assert [part.shape for part in (labels, scores, boxes, count)] == [(2, 60), (2, 60), (2, 60, 4), (2,)]


@pytest.mark.parametrize("letterbox", [False, True])
def test_an_end_to_end_graph_finds_what_pytorch_finds(detector: Detector, tmp_path: Path, letterbox: bool) -> None:
    detector = replace(detector, letterbox=letterbox)
    path, card, _ = written(detector, tmp_path, Shape(None, SIZE), graph="end_to_end")
    exported = detector_of(open_model(path, card), card)
    for number, (height, width) in enumerate([(240, 320), (301, 97), (40, 50)]):
        image = np.random.default_rng(number).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = image.repeat(8, 0).repeat(8, 1)[:height, :width]
        expected, found = detector.predict(image), exported.predict(image)
        assert len(expected) > 3
        assert abs(len(expected) - len(found)) <= 1
        distance = np.abs(expected.boxes[:, None] - found.boxes[None]).max(2)
        distance += 1000 * (expected.labels[:, None] != found.labels[None])
        nearest = distance.argmin(1)
        assert np.median(distance.min(1)) < 0.2
        assert np.median(np.abs(expected.scores - found.scores[nearest])) < 0.01


@pytest.mark.parametrize("letterbox", [False, True])
def test_images_are_resized_as_pillow_does(letterbox: bool) -> None:
    from openvino import opset13 as ops

    from rtdetrv2_train.data.images.resize import evaluation_input
    from rtdetrv2_train.export.openvino_resize import resize_within

    shapes = {"images": [1, 3, *SIZE], "spans": [1, 2], "threshold": [1]}
    parameters = [ops.parameter(shape, np.float32, name=name) for name, shape in shapes.items()]
    for parameter, name in zip(parameters, shapes, strict=True):
        parameter.output(0).get_tensor().set_names({name})
    model = openvino.Model([ops.result(ops.abs(parameter)) for parameter in parameters], parameters)
    resized = openvino.compile_model(resize_within(model, SIZE, letterbox), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for number, shape in enumerate([(240, 320), (435, 768), (97, 301), (40, 50), (1, 1), SIZE]):
        image = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
        found = resized([image[None], np.zeros(1, np.float32)])
        expected, span = evaluation_input(image, SIZE, letterbox)
        difference = np.abs(np.rint(255 * found[0][0].transpose(1, 2, 0)) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05
        np.testing.assert_allclose(found[1][0], span, rtol=1e-6)


def test_writing_changes_no_answer(detector: Detector, tmp_path: Path) -> None:
    images = made.image("image", 1, *SIZE)
    with torch.no_grad():
        before = copy.deepcopy(detector.model)(images)
        written(detector, tmp_path, Shape(1, SIZE), "float16")
        after = detector.model(images)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.boxes, after.boxes)


def test_what_is_missing_is_named(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, card, _ = written(detector, tmp_path, Shape(1, SIZE))
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"OpenVINO .* cannot open '.*model\.xml'"):
        open_model(path, card)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs openvino: pip install "rtdetrv2-train\[openvino\]"'):
        open_model(path, card)
