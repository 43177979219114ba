"""What is exported predicts the same elsewhere, and comes back unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from rtdetrv2_train import RTDETRv2, UserError, build_model, load_detector
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.commands.export import export
from rtdetrv2_train.export.huggingface import export_huggingface, huggingface_config
from rtdetrv2_train.export.reference import export_reference
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.loading import restore
from tests.running import run_command
from tests.support import fill, largest_difference, made

COLOURS = ("red", "green", "blue")
SIZE = (256, 256)
THRESHOLD = 0.02
EXPORT = {"run": None, "checkpoint": None, "output": None, "num_eval_layers": None, "class_names": None}


def detector_of(name: str) -> Detector:
    model = build_model(name, num_classes=3, image_size=SIZE)
    fill(model)
    return Detector(model.eval(), COLOURS, SIZE)


@pytest.fixture(scope="module")
def r18vd() -> Detector:
    return detector_of("r18vd")


@pytest.fixture(scope="module")
def run_folder(r18vd: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that an export reads."""
    folder = tmp_path_factory.mktemp("run")
    card = ModelCard(r18vd.model.architecture, COLOURS, (1, 2, 3))
    write_model_folder(folder / "model", r18vd.model.state_dict(), card)
    (folder / "config.yaml").write_text("name: r18vd\n")
    return folder


def assert_same_weights(found: dict[str, Tensor], model: RTDETRv2) -> None:
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def written_by(write: Callable[[Detector, Path], dict[str, object]], detector: Detector, output: Path) -> Path:
    """Where an export lies."""
    return next(value for value in write(detector, output).values() if isinstance(value, Path))


def rows_of(logits: Tensor, boxes: Tensor) -> np.ndarray:
    """Logits and box of each query of one image."""
    return torch.cat([logits, boxes], -1)[0].numpy()


def test_transformers_opens_an_export_and_predicts_the_same(r18vd: Detector, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = written_by(export_huggingface, r18vd, tmp_path / "hf")
    rows, columns = np.mgrid[:300, :400]
    image = Image.fromarray(np.stack([rows * 2 % 256, columns * 3 % 256, (rows + columns) % 256], -1).astype(np.uint8))

    image_processor = transformers.RTDetrImageProcessor.from_pretrained(folder)
    model = transformers.RTDetrV2ForObjectDetection.from_pretrained(folder)
    inputs = image_processor(images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
        ours = r18vd.model(inputs["pixel_values"])
    assert largest_difference(rows_of(outputs.logits, outputs.pred_boxes), rows_of(ours.logits, ours.boxes)) < 1e-4
    (theirs,) = image_processor.post_process_object_detection(
        outputs, target_sizes=[(image.height, image.width)], threshold=THRESHOLD
    )
    found = r18vd.predict(image, threshold=THRESHOLD)
    assert len(found) > 0
    names = [model.config.id2label[label] for label in theirs["labels"].tolist()]
    assert sorted(found.names) == sorted(names)
    classes = {name: index * 1000.0 for index, name in enumerate(r18vd.class_names)}
    # detections of nearly the same score may change places; 0.01 here is 1e-4 in score and 0.01 pixel
    mine = np.column_stack([[classes[name] for name in found.names], found.scores * 100, found.boxes])
    other = np.column_stack(
        [[classes[name] for name in names], theirs["scores"].numpy() * 100, theirs["boxes"].numpy()]
    )
    assert largest_difference(mine, other) < 0.01


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("r34vd", "r50vd_m", "r50vd", "r101vd")]


@pytest.mark.parametrize("name", ["r18vd", *LARGE])
def test_a_model_that_transformers_made_goes_both_ways(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = [f"class {i}" for i in range(80)]
    config = transformers.RTDetrV2Config.from_dict(huggingface_config(build_model(name).architecture, names))
    model = transformers.RTDetrV2ForObjectDetection(config).eval()
    with torch.no_grad():  # box heads start at zero, which would hide an exchange of layers
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "theirs")
    detector = load_detector(tmp_path / "theirs", device="cpu")
    images = made.image(
        "image", 1, 192, 192
    ).double()  # in float64 no two scores are so near that queries change places
    with torch.no_grad():
        theirs, ours = copy.deepcopy(model).double()(images), detector.model.double()(images)
    wanted = rows_of(theirs.logits, theirs.pred_boxes)
    assert largest_difference(rows_of(ours.logits, ours.boxes), wanted) < 1e-4

    detector.model.float()
    folder = written_by(export_huggingface, detector, tmp_path / "back")
    again = transformers.RTDetrV2ForObjectDetection.from_pretrained(folder).state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())


def test_layers_that_are_not_used_are_not_exported(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    detector = detector_of("r18vd")
    detector.model.use_decoder_layers(2)
    folder = written_by(export_huggingface, detector, tmp_path)
    model = transformers.RTDetrV2ForObjectDetection.from_pretrained(folder)
    again = load_detector(folder, device="cpu").model
    images = made.image("image", 1, *SIZE)
    with torch.no_grad():
        expected, theirs, ours = detector.model(images), model(images), again(images)
    wanted = rows_of(expected.logits, expected.boxes)
    assert largest_difference(rows_of(theirs.logits, theirs.pred_boxes), wanted) < 1e-4
    assert torch.equal(ours.boxes, expected.boxes)


def test_there_and_back_changes_no_bit(r18vd: Detector, tmp_path: Path) -> None:
    path = written_by(export_reference, r18vd, tmp_path)
    assert path == tmp_path / "model.pth"
    assert_same_weights(dict(read_checkpoint(path).state_dict), r18vd.model)
    again = written_by(export_huggingface, r18vd, tmp_path / "hf")
    assert_same_weights(restore(read_checkpoint(again)).model.state_dict(), r18vd.model)


def test_the_authors_code_finds_what_it_looks_for(r18vd: Detector, tmp_path: Path) -> None:
    content = torch.load(written_by(export_reference, r18vd, tmp_path / "r18vd.pth"), weights_only=True)
    assert content["last_epoch"] == -1
    assert content["ema"]["updates"] == 0
    for weights in (content["model"], content["ema"]["module"]):
        assert_same_weights(weights, r18vd.model)
    anchors = sum(SIZE[0] // stride * (SIZE[1] // stride) for stride in (8, 16, 32))
    assert content["model"]["decoder.anchors"].shape == (1, anchors, 4)
    assert content["model"]["decoder.valid_mask"].dtype == torch.bool


@pytest.mark.parametrize("format_name", ["huggingface", "reference"])
def test_a_run_is_exported_into_its_folder(
    run_folder: Path, r18vd: Detector, format_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written = export(OmegaConf.create({**EXPORT, "run": str(run_folder), "format": format_name}))
    assert written.is_relative_to(run_folder / "export" / format_name)
    assert f"export/{format_name}" in capsys.readouterr().out
    checkpoint = read_checkpoint(written)
    assert checkpoint.class_names == (COLOURS if format_name == "huggingface" else None)
    name = "decoder.dec_score_head.2.weight"
    assert torch.equal(checkpoint.state_dict[name], r18vd.model.state_dict()[name])


def test_the_command_line_exports_a_run(run_folder: Path, tmp_path: Path) -> None:
    output = run_command(
        "export",
        f"run={run_folder}",
        "format=huggingface",
        "output=hf",
        "num_eval_layers=1",
        folder=tmp_path,
        columns=20,
    )
    assert 'RTDetrV2ForObjectDetection.from_pretrained("hf")' in output
    assert read_checkpoint(tmp_path / "hf").architecture.decoder.num_layers == 1
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": [2, 4, 6]}, r"one number of sampling points for all levels, this model has \[2, 4, 6\]"),
        ({}, "3 fusion blocks, this model has 1"),
    ],
)
def test_what_transformers_cannot_express_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    model = build_model("nano", num_classes=3, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        export_huggingface(Detector(model.eval(), COLOURS, (128, 128)), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_what_the_authors_code_cannot_build_is_refused(tmp_path: Path) -> None:
    model = build_model("nano", num_classes=3)
    with pytest.raises(UserError, match=r"cannot build this model: its backbone has \[1, 1, 1, 1\] blocks"):
        export_reference(Detector(model.eval(), COLOURS, (128, 128)), tmp_path)


def test_our_own_weights_are_not_overwritten(run_folder: Path, r18vd: Detector) -> None:
    with pytest.raises(UserError, match="would be overwritten: give another output="):
        export_huggingface(r18vd, run_folder / "model")


def test_transformers_differs_on_images_that_are_not_square(r18vd: Detector, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="on square images only, this model's are 256 x 320: export with format=ref"):
        export_huggingface(replace(r18vd, image_size=(256, 320)), tmp_path)


def test_transformers_would_map_the_boxes_of_a_letterbox_wrongly(r18vd: Detector, tmp_path: Path) -> None:
    letterboxed = replace(r18vd, letterbox=True)
    with pytest.raises(UserError, match=r"data\.letterbox=true: export with format=reference"):
        export_huggingface(letterboxed, tmp_path)
    assert "keep their aspect ratio" in str(export_reference(letterboxed, tmp_path))


def test_an_export_without_source_or_place_says_so(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to export: give run="):
        export(OmegaConf.create({**EXPORT, "format": "reference"}))
    with pytest.raises(UserError, match="no format=referense: did you mean 'reference'"):
        export(OmegaConf.create({**EXPORT, "run": str(run_folder), "format": "referense"}))
    lone = tmp_path / "lone.pth"
    lone.write_bytes(b"x")
    with pytest.raises(UserError, match=r"belongs to no run, .* give output=FOLDER"):
        export(OmegaConf.create({**EXPORT, "checkpoint": str(lone), "format": "reference"}))
