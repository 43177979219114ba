"""What is exported for a runtime takes what its card says and finds what PyTorch finds, or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdetrv2_train import UserError, build_model, load_detector
from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.export import deploying
from rtdetrv2_train.export.deploying import Wish, deploy
from rtdetrv2_train.export.formats import FORMATS, Job
from rtdetrv2_train.export.graph import Shape, record
from rtdetrv2_train.export.verification import compared
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.export_card import ExportCard
from tests.support import fill_with_scores

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SIZE = (96, 128)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    model = build_model("nano", 3, SIZE, num_queries=20).eval()
    fill_with_scores(model)
    return Detector(model, ("red", "green", "blue"), SIZE, category_ids=(1, 2, 3), threshold=0.3)


def pictures(*sizes: tuple[int, int]) -> list[ImageArray]:
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8) for h, w in sizes]
    return [image.repeat(8, 0).repeat(8, 1) for image in coarse]


IMAGES = pictures((96, 128), (200, 120), (64, 248))


def session_of(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("sampling", ["default", "discrete"])
def test_a_dynamic_file_takes_five_shapes(detector: Detector, sampling: Any, tmp_path: Path) -> None:
    exported = deploy(detector, Wish("onnx", shape=Shape(None, None), sampling=sampling), tmp_path, IMAGES)
    shape = session_of(exported.path).get_inputs()[0].shape
    assert shape == ["batch", 3, "height", "width"]
    for batch, height, width in ((1, 96, 128), (2, 96, 128), (3, 160, 64), (5, 64, 64), (2, 192, 256)):
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected, found = exported.reference.model(images), exported.detector.model(images)
        torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-4)


def test_a_fixed_file_says_its_shape_and_fills_its_batch_up(detector: Detector, tmp_path: Path) -> None:
    exported = deploy(detector, Wish("onnx", shape=Shape(2, (64, 96))), tmp_path, IMAGES)
    session = session_of(exported.path)
    assert [value.shape for value in session.get_inputs()] == [[2, 3, 64, 96]]
    assert [value.shape for value in session.get_outputs()] == [[2, 20, 3], [2, 20, 4]]
    operators = {node.op_type for node in onnx_of(exported.path).graph.node}
    assert not operators & {"Sin", "Cos", "Range"}  # positions are constants
    assert compared(exported.reference, exported.detector, IMAGES).pixels.max() < 0.01  # three images in batches of two


def test_a_discrete_file_needs_no_grid_sample(detector: Detector, tmp_path: Path) -> None:
    bilinear = deploy(detector, Wish("onnx", shape=Shape(1, SIZE)), tmp_path / "a", IMAGES)
    discrete = deploy(detector, Wish("onnx", shape=Shape(1, SIZE), sampling="discrete"), tmp_path / "b", IMAGES)
    assert "GridSample" in {node.op_type for node in onnx_of(bilinear.path).graph.node}
    assert "GridSample" not in {node.op_type for node in onnx_of(discrete.path).graph.node}


def onnx_of(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def test_exporting_leaves_the_model_as_it_was(detector: Detector, tmp_path: Path) -> None:
    def answers() -> list[torch.Tensor]:
        with torch.no_grad():
            outputs = [
                detector.pytorch_model(torch.full((1, 3, *size), 0.4))
                for size in (SIZE, (64, 64), (128, 160), (160, 96))
            ]
        return [tensor for output in outputs for tensor in (output.logits, output.boxes)]

    before = answers()
    for shape in (Shape(None, None), Shape(1, (128, 160))):
        deploy(detector, Wish("onnx", shape=shape, sampling="discrete"), tmp_path, IMAGES)
    assert all(map(torch.equal, answers(), before))


@pytest.mark.parametrize("letterbox", [False, True])
def test_an_end_to_end_file_takes_bytes_of_any_size(detector: Detector, letterbox: bool, tmp_path: Path) -> None:
    detector = replace(detector, letterbox=letterbox)
    exported = deploy(detector, Wish("onnx", "end_to_end", Shape(None, SIZE)), tmp_path, IMAGES)
    images = pictures((480, 640), (96, 128), (40, 304), (304, 40))
    agreement = compared(detector, exported.detector, images)
    assert agreement.pixels.max() < 1
    assert agreement.scores.max() < 0.02
    labels, scores, boxes, count = session_of(exported.path).run(
        None, {"images": images[0][None], "threshold": np.array([0.3], np.float32)}
    )
    assert labels.shape == scores.shape == boxes.shape[:2]
    assert count[0] == (scores[0] > 0.3).sum() == len(detector.predict(images[0]))
    assert boxes[0, 0, 2] > 128  # pixels of the image, not of the input


def test_float16_halves_the_file(detector: Detector, tmp_path: Path) -> None:
    single = deploy(detector, Wish("onnx", shape=Shape(1, SIZE)), tmp_path / "a", IMAGES)
    half = deploy(detector, Wish("onnx", shape=Shape(1, SIZE), precision="float16"), tmp_path / "b", IMAGES)
    assert half.path.stat().st_size < 0.6 * single.path.stat().st_size
    assert {value.type for value in session_of(half.path).get_inputs()} == {"tensor(float)"}


def test_pixels_are_not_computed_in_float16(detector: Detector, tmp_path: Path) -> None:
    """It has no fractions of pixels above 2048."""
    exported = deploy(detector, Wish("onnx", "end_to_end", Shape(1, SIZE), "float16"), tmp_path, IMAGES)
    nodes = {node.output[0]: node for node in onnx_of(exported.path).graph.node}
    for name, operator in (("boxes", "GatherElements"), ("scores", "TopK")):
        last = nodes[name]
        while last.op_type == "Cast":
            assert last.attribute[0].i == 1  # float32
            last = nodes[last.input[0]]
        assert last.op_type == operator
    assert exported.path.stat().st_size < 5e6


@pytest.mark.parametrize("graph", ["raw", "end_to_end"])
def test_int8_is_of_the_convolutions_and_not_of_the_decoder(detector: Detector, graph: Any, tmp_path: Path) -> None:
    def inputs() -> Iterator[NDArray[np.float32]]:
        for image in pictures(*[SIZE] * 8):
            yield (image / np.float32(255)).transpose(2, 0, 1)[None]

    path = tmp_path / "model.onnx"
    recorded = record(detector, graph, Shape(1, SIZE), "int8")
    FORMATS["onnx"].write(Job(recorded, path, SIZE, 18, inputs, None if graph == "raw" else False))
    session_of(path)
    nodes = onnx_of(path).graph.node
    quantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    in_int8 = [node for node in convolutions if node.input[1] in quantized]
    assert 0.8 * len(convolutions) < len(in_int8) < len(convolutions)
    assert not [node.name for node in nodes if node.op_type in ("MatMul", "Gemm") and set(node.input) & quantized]
    assert path.stat().st_size < 5e6


def test_the_card_says_what_the_file_takes_and_load_detector_reads_it(detector: Detector, tmp_path: Path) -> None:
    exported = deploy(detector, Wish("onnx", shape=Shape(1, SIZE)), tmp_path / "m.onnx", IMAGES)
    card = ExportCard.read(exported.path)
    assert (card.format, card.batch, card.fixed_size, card.image_size) == ("onnx", 1, True, SIZE)
    assert card.verified["objects"]["3 x 96 x 128"]["largest_pixels"] < 0.01
    assert card.versions["torch"] == torch.__version__.split("+")[0] or card.versions["torch"] == torch.__version__
    for source in (exported.path, tmp_path):
        found = load_detector(source)
        assert (found.class_names, found.category_ids, found.threshold) == (("red", "green", "blue"), (1, 2, 3), 0.3)
        expected = detector.predict(IMAGES[1])
        np.testing.assert_allclose(found.predict(IMAGES[1]).boxes, expected.boxes, atol=0.01)
    with pytest.raises(UserError, match=r"half has no effect on the exported model"):
        load_detector(exported.path, half=True)
    (tmp_path / "m.card.json").unlink()
    with pytest.raises(UserError, match=r"m\.card\.json' is missing"):
        load_detector(exported.path)


def test_a_file_that_finds_something_else_is_refused_by_its_first_layer(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FORMATS["onnx"].write

    def spoiled(job: Any) -> None:
        import onnx

        write(job)
        model = onnx.load(str(job.path))
        block = [node for node in model.graph.node if "encoder.pan_blocks.1" in str(node) and node.op_type == "Conv"]
        kernel = next(tensor for tensor in model.graph.initializer if tensor.name == block[0].input[1])
        changed = 3 * onnx.numpy_helper.to_array(kernel)
        kernel.CopyFrom(onnx.numpy_helper.from_array(changed, kernel.name))
        onnx.save(model, str(job.path))

    monkeypatch.setitem(deploying.FORMATS, "onnx", replace(FORMATS["onnx"], write=spoiled))
    with pytest.raises(
        UserError, match=r"does not find what PyTorch finds: .*the first layer that differs is encoder_pan_blocks_1"
    ):
        deploy(detector, Wish("onnx", shape=Shape(1, SIZE)), tmp_path, IMAGES)
    assert not list(tmp_path.iterdir())  # nobody takes it for a good one


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            Wish("onnx", shape=Shape(1, (100, 128))),
            r"size=\[100, 128\]: height and width must be multiples of 32.*\[96, 128\]",
        ),
        (Wish("onnx", shape=Shape(0, SIZE)), "batch is 0: give a whole number of 1 or more, or dynamic"),
        (Wish("onnx", shape=Shape(1, SIZE), opset=11), r"opset=11: .* write 18 to"),
        (Wish("onnx", shape=Shape(1, SIZE), opset=99), r"opset=99: .* write 18 to"),
        (Wish("onnx", shape=Shape(1, SIZE), opset=26), r"opset=26: .*write"),
        (Wish("onnx", "end_to_end", Shape(1, None)), "leave size=dynamic out"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(
    detector: Detector, wish: Wish, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        deploy(detector, wish, tmp_path, IMAGES)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rtdetrv2_train.inference.runtimes.importlib.util.find_spec", lambda name: None if name == "onnxscript" else 1
    )
    with pytest.raises(UserError, match=r'format=onnx needs onnxscript: pip install "rtdetrv2-train\[onnx\]"'):
        deploy(detector, Wish("onnx", shape=Shape(1, SIZE)), tmp_path, IMAGES)


def test_every_format_has_a_runtime_and_a_suffix() -> None:
    from rtdetrv2_train.inference.runtimes import RUNTIMES

    assert RUNTIMES.keys() == FORMATS.keys()
    assert all(runtime.suffix.startswith(".") for runtime in RUNTIMES.values())
    json.dumps([runtime._asdict() for runtime in RUNTIMES.values()])
