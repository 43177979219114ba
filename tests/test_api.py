"""The library: models by name, detectors from whatever holds weights, predictions on images."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

import rtdetrv2_train
from rtdetrv2_train import (
    Detector,
    Prediction,
    RTDETRv2,
    Targets,
    UserError,
    build_criterion,
    build_model,
    load_detector,
    load_weights,
    predict,
)
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.export.huggingface import write_huggingface_folder
from rtdetrv2_train.export.reference import write_authors_file
from tests.support import ROOT, fill_with_scores, made

COLOURS = ("red", "green", "blue")


def filled(name: str, **options: object) -> RTDETRv2:
    model = build_model(name, num_classes=3, **options)  # type: ignore[arg-type]
    fill_with_scores(model)
    return model.eval()


def photo(height: int = 90, width: int = 140) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 2 % 256, columns * 3 % 256, (rows + columns) % 256], -1).astype(np.uint8)


def write_nano_folder(folder: Path) -> RTDETRv2:
    model = filled("nano")
    write_model_folder(folder, model.state_dict(), ModelCard(model.architecture, COLOURS, (1, 2, 3)))
    return model


@pytest.fixture(scope="module")
def nano_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano") / "model"
    write_nano_folder(folder)
    return folder


def assert_equal(found: Prediction, expected: Prediction) -> None:
    assert len(expected) > 0
    assert found.names == expected.names
    for name in ("labels", "scores", "boxes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text().partition("## Python\n")[2].partition("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippets
    code = "".join(snippets)
    (source,) = re.findall(r'load_detector\("([^"]+)"\)', code)
    write_nano_folder(tmp_path / source / "model")
    for path in re.findall(r'"([^"]+\.jpg)"', code):
        Image.fromarray(photo()).save(tmp_path / path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, rtdetrv2_train\n"
        "heavy = {'torch', 'lightning', 'hydra', 'cv2', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_everything_offered_exists() -> None:
    from rtdetrv2_train import api

    assert rtdetrv2_train.__all__ == sorted(api.__all__)
    assert all(getattr(rtdetrv2_train, name) is getattr(api, name) for name in api.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'build_modl'"):
        rtdetrv2_train.build_modl  # noqa: B018


def test_options_go_to_the_decoder() -> None:
    model = build_model(
        "nano",
        num_classes=5,
        image_size=(64, 96),
        num_points=[2, 4, 6],
        sampling="discrete",
        num_queries=7,
        num_denoising=0,
        num_eval_layers=2,
    )
    attention = model.decoder.decoder.layers[0].cross_attn
    assert attention.num_points == [2, 4, 6]
    assert attention.method == "discrete"
    assert model.decoder.num_eval_layers == 2
    assert model.decoder.anchor_sizes[0] == (8, 12)
    output = model.eval()(torch.zeros(1, 3, 64, 96))
    assert output.logits.shape == (1, 7, 5)
    assert output.boxes.shape == (1, 7, 4)


def test_model_and_criterion_train() -> None:
    torch.manual_seed(0)
    model, criterion = build_model("nano", num_classes=3), build_criterion("nano", num_classes=3)
    targets = Targets.from_list([{"boxes": [[0.5, 0.5, 0.2, 0.2]], "labels": [1]}, {"boxes": [], "labels": []}])
    losses = criterion(model(torch.rand(2, 3, 64, 64), targets), targets)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    assert {"loss_vfl", "loss_bbox", "loss_giou"} <= losses.keys()
    assert 0 < loss.item() < 1000


def test_an_ablation_is_a_model_too() -> None:
    assert build_model("r18vd_sp1").decoder.decoder.layers[0].cross_attn.num_points == [1, 1, 1]


def test_a_hydra_application_around_it_is_left_alone() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        build_model("nano")
        assert compose("train", overrides=["model=nano"]).name == "nano"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r50v", {}, "there is no model 'r50v': did you mean 'r50vd'?"),
        ("nano", {"num_point": [1, 1, 1]}, "has no 'num_point': did you mean 'num_points'?"),
        ("nano", {"num_points": [4, 4]}, "num_points gives 2 levels, but the encoder has 3"),
        ("nano", {"image_size": (100, 64)}, r"multiples of 32, not \(100, 64\)"),
    ],
)
def test_what_cannot_be_built_is_one_line(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_weights_go_from_one_model_to_another() -> None:
    source, model = filled("nano"), build_model("nano", num_classes=3)
    assert load_weights(model, source.state_dict()).missing == ()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_path_image_and_array_predict_the_same(nano_folder: Path, tmp_path: Path) -> None:
    detector = load_detector(nano_folder, device="cpu")
    assert detector.class_names == COLOURS
    assert detector.image_size == (128, 128)
    array = photo()
    expected = detector.predict(array, threshold=0.35)
    assert expected.boxes.shape == (len(expected), 4)
    assert expected.names == [COLOURS[label] for label in expected.labels]
    assert list(expected.scores) == sorted(expected.scores, reverse=True)
    assert expected.scores.min() > 0.35
    Image.fromarray(array).save(tmp_path / "photo.png")
    for image in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(array)):
        assert_equal(detector.predict(image, threshold=0.35), expected)
    opaque = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    assert_equal(detector.predict(opaque, threshold=0.35), expected)
    cv2.imwrite(str(tmp_path / "photo.jpg"), array[..., ::-1])
    with Image.open(tmp_path / "photo.jpg") as image:
        assert_equal(detector.predict(image, threshold=0.35), detector.predict(tmp_path / "photo.jpg", threshold=0.35))


def test_grey_images_are_as_good_as_coloured_ones(nano_folder: Path) -> None:
    detector = load_detector(nano_folder, device="cpu")
    grey = photo()[..., 0]
    expected = detector.predict(np.stack([grey] * 3, -1), threshold=0.35)
    assert_equal(detector.predict(grey, threshold=0.35), expected)
    assert_equal(detector.predict(grey[..., None], threshold=0.35), expected)


def test_a_list_gives_a_list_whatever_the_sizes(nano_folder: Path) -> None:
    detector = load_detector(nano_folder, device="cpu")
    images = [photo(60 + 10 * number, 200) for number in range(9)]
    together = detector.predict(images, threshold=0.35)
    assert len(together) == 9
    for image, found in zip(images, together, strict=True):
        alone = detector.predict(image, threshold=0.35)
        assert found.names == alone.names
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-2)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
    assert detector.predict([]) == []


def test_predicting_keeps_the_mode_of_the_model(nano_folder: Path) -> None:
    model = filled("nano").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = predict(model, photo(), threshold=0.35)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = load_detector(nano_folder, device="cpu").predict(photo(), threshold=0.35)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert found.names == [f"LABEL_{label}" for label in expected.labels]
    assert predict(model, photo(), COLOURS, threshold=0.35).names == expected.names


def test_what_is_no_image_is_named(nano_folder: Path, tmp_path: Path) -> None:
    detector = load_detector(nano_folder, device="cpu")
    with pytest.raises(UserError, match=r"image '.*nowhere\.jpg' cannot be read"):
        detector.predict(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match=r"type float32 and shape \[4, 4, 3\] is no image"):
        detector.predict(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threshold is 50: give a number from 0 to 1"):
        detector.predict(photo(), threshold=50)


def test_fewer_decoder_layers_can_be_used(nano_folder: Path) -> None:
    image = made.image("image", 1, 128, 128)
    with torch.no_grad():
        model = filled("nano", num_eval_layers=1)
        expected = model(image)
        found = load_detector(nano_folder, num_eval_layers=1, device="cpu").model(image)
    assert torch.equal(found.boxes, expected.boxes)
    with pytest.raises(UserError, match="num_eval_layers=4: this model's decoder has layers 1 to 2"):
        load_detector(nano_folder, num_eval_layers=4)


def written(kind: str, model: RTDETRv2, folder: Path) -> Path:
    if kind == "huggingface":
        return write_huggingface_folder(
            folder, model.state_dict(), COLOURS, replace(model.architecture, image_size=(64, 96))
        )
    return write_authors_file(folder / "model.pth", model.state_dict(), model.architecture)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["authors", "huggingface"])
def test_published_models_are_recognised_by_their_shape(kind: str, tmp_path: Path) -> None:
    model = filled("r18vd_sp1", num_denoising=0)
    detector = load_detector(written(kind, model, tmp_path), device="cpu")
    assert detector.class_names == (COLOURS if kind == "huggingface" else ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert detector.image_size == ((64, 96) if kind == "huggingface" else (640, 640))
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in detector.model.state_dict().items()
        if name not in ("decoder.anchors", "decoder.valid_mask")
    )


def test_weights_that_nobody_knows_need_the_name_of_their_model(tmp_path: Path) -> None:
    path = tmp_path / "nano.pth"
    torch.save(filled("nano").state_dict(), path)
    with pytest.raises(UserError, match=r"nano\.pth' does not say what model it is .* such as model=r18vd"):
        load_detector(path)
    detector = load_detector(path, model="nano", class_names=COLOURS, device="cpu")
    assert isinstance(detector, Detector)
    assert detector.class_names == COLOURS


@pytest.mark.slow
def test_predicting_does_not_load_what_only_training_needs() -> None:
    program = "import sys, rtdetrv2_train.api; print({'lightning', 'torchvision', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"
