"""Images of four channels, of which only the last tells the classes apart: trained, measured, predicted, exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train import build_model, load_detector
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.data.images.decode import Reading, read_image
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.predicting import predict_source
from rtdetrv2_train.inference.sources import Source
from tests.running import WITHOUT_PICTURES, of_set, run_command

SIZE = 64


def write_set(folder: Path, num_images: int) -> Path:
    """Grey rectangles; what class they are shows in the fourth channel alone, bright or dark. TIFF, PNG and .npy."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        picture = generator.integers(0, 60, (SIZE, SIZE, 4), dtype=np.uint8)
        picture[..., 3] = 128
        category = int(generator.choice([3, 7]))
        width, height = (int(v) for v in generator.integers(SIZE // 4, SIZE // 2, 2))
        left, top = int(generator.integers(0, SIZE - width)), int(generator.integers(0, SIZE - height))
        picture[top : top + height, left : left + width, :3] = 200
        picture[top : top + height, left : left + width, 3] = 255 if category == 3 else 0
        name = f"{number}.{('tif', 'png', 'npy')[number % 3]}"
        _save(folder / "images" / name, picture)
        images.append({"id": number, "file_name": name, "width": SIZE, "height": SIZE})
        box = {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": category, **box})
    categories = [{"id": 3, "name": "bright"}, {"id": 7, "name": "dark"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    if path.suffix == ".tif":
        bands_first = np.ascontiguousarray(picture.transpose(2, 0, 1))
        tifffile.imwrite(path, bands_first, photometric="minisblack", planarconfig="separate")
    elif path.suffix == ".png":
        Image.fromarray(picture, "RGBA").save(path)
    else:
        np.save(path, picture)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to tell the classes apart."""
    folder = tmp_path_factory.mktemp("channels")
    root = write_set(folder / "set", 24)
    run_command(
        "train", "model=nano", "model.image_size=[64,64]", "augment=light", "data.channels=4", "trainer=cpu",
        *of_set(root), "recipe.total_batch_size=8", "data.num_workers=0", "data.cache=ram",
        "data.eval_batch_size=8", "trainer.max_epochs=40", "trainer.check_val_every_n_epoch=40",
        f"run_folder={folder / 'run'}",
    )  # fmt: skip
    return folder


def truth_of(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "set/annotations.json").read_text())
    names = {3: "bright", 7: "dark"}
    pairs = zip(content["images"], content["annotations"], strict=True)
    return {image["file_name"]: names[annotation["category_id"]] for image, annotation in pairs}


@pytest.mark.slow
def test_the_fourth_channel_tells_the_classes_apart(run: Path) -> None:
    """What a model of four channels finds follows the fourth alone, in PyTorch and once it is exported."""
    detector = load_detector(run / "run", device="cpu")
    assert (detector.channels, detector.pytorch_model.architecture.in_channels) == (4, 4)
    names = truth_of(run)
    right = turned_round = 0
    for name, truth in names.items():
        pixels = read_image(run / "set/images" / name, Reading(channels=4))
        inverted = pixels.copy()
        inverted[..., 3] = 255 - inverted[..., 3]
        by_file, by_array, other = detector.predict([run / "set/images" / name, pixels, inverted], threshold=0)
        np.testing.assert_array_equal(by_file.boxes, by_array.boxes)
        right += by_array.names[0] == truth
        turned_round += other.names[0] != truth
    assert right >= 0.9 * len(names)
    assert turned_round >= 0.9 * len(names)


@pytest.mark.slow
def test_evaluation_takes_the_channels_from_the_model(run: Path, tmp_path: Path) -> None:
    trained = json.loads((run / "run/metrics.json").read_text())
    source = f"checkpoint={run / 'run/model'}"
    run_command("eval", source, *of_set(run / "set"), "trainer=cpu", f"run_folder={tmp_path / 'eval'}")
    measured = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert measured["AP"] == pytest.approx(trained["AP"], abs=1e-6)
    assert measured["AP50"] > 0.5
    with Image.open(run / "run/predictions.png") as picture:
        assert picture.mode == "RGB"
    assert (tmp_path / "eval/report.html").exists()
    said = run_command(
        "eval", source, *of_set(run / "set"), "data.channels=3", "trainer=cpu", f"run_folder={tmp_path / 'b'}", expect=2
    )
    assert "data.channels=3, but" in said
    assert "takes 4: leave data.channels out" in said


@pytest.mark.slow
def test_prediction_reads_all_bands_of_files(run: Path, tmp_path: Path) -> None:
    what = [f"run={run / 'run'}", "device=cpu", "threshold=0.2", "formats=[images,csv]"]
    said = run_command("predict", *what, f"source={run / 'set/images'}", f"output={tmp_path / 'found'}")
    assert "in 24 images" in said
    names = {path.name for path in (tmp_path / "found/images").iterdir()}
    assert {"1.png", "2.npy.jpg", "3.tif.jpg"} <= names
    with Image.open(tmp_path / "found/images/1.png") as drawn:
        assert (drawn.mode, drawn.size) == ("RGB", (64, 64))
    Image.new("RGB", (64, 64)).save(tmp_path / "colour.jpg")
    said = run_command("predict", *what, f"source={tmp_path / 'colour.jpg'}", f"output={tmp_path / 'b'}", expect=1)
    assert "skipped colour.jpg: it has 3 bands, and data.channels is 4" in said


@pytest.mark.slow
def test_arrays_and_pictures_of_other_channels_are_refused(run: Path) -> None:
    detector = load_detector(run / "run", device="cpu")
    for shape in ((64, 64), (64, 64, 3), (64, 64, 5)):
        with pytest.raises(UserError, match=r"is no image of the 4 channels .* give uint8 of shape \[H, W, 4\]"):
            detector.predict(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"an image has 3 bands, and data\.channels is 4"):
        detector.predict(Image.new("RGB", (64, 64)))
    assert len(detector.predict(Image.new("RGBA", (64, 64)), threshold=0)) > 0
    assert len(detector.predict(np.zeros((200, 300, 4), np.uint8), threshold=0, tile=64)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["raw", "end_to_end"])
def test_an_exported_model_takes_four_channels(run: Path, tmp_path: Path, graph: str) -> None:
    """Export compares with PyTorch itself; here the fourth channel decides in the runtime too."""
    run_command("export", f"run={run / 'run'}", "format=onnx", f"graph={graph}", f"output={tmp_path}")
    card = json.loads((tmp_path / "model.card.json").read_text())
    assert card["channels"] == 4
    found, expected = load_detector(tmp_path / "model.onnx"), load_detector(run / "run", device="cpu")
    assert found.channels == 4
    for name in list(truth_of(run))[:6]:
        pixels = read_image(run / "set/images" / name, Reading(channels=4))
        inverted = pixels.copy()
        inverted[..., 3] = 255 - inverted[..., 3]
        for image in (pixels, inverted):
            one, other = found.predict(image, threshold=0), expected.predict(image, threshold=0)
            assert one.names[0] == other.names[0]
            np.testing.assert_allclose(one.boxes[0], other.boxes[0], atol=0.5)


@pytest.mark.slow
def test_what_cannot_have_four_channels_says_so(run: Path, tmp_path: Path) -> None:
    said = run_command("export", f"run={run / 'run'}", "format=reference", f"output={tmp_path}", expect=2)
    assert "the authors' code has models of RGB only, and this one takes 4 channels" in said
    detector = load_detector(run / "run", device="cpu")
    with pytest.raises(UserError, match="is a video, whose pictures are RGB, and the model takes 4 channels"):
        predict_source(detector, Source(video=Path("clip.mp4")), tmp_path)
    said = run_command("demo", f"run={run / 'run'}", expect=2)
    assert "takes images of 4 channels, and the page shows pictures" in said


@pytest.mark.slow
def test_a_run_of_four_channels_starts_from_another_and_from_one_of_rgb(run: Path, tmp_path: Path) -> None:
    few = ["trainer=cpu", *of_set(run / "set"), *WITHOUT_PICTURES, "data.num_workers=0", "trainer.max_epochs=1"]
    few += ["model=nano", "model.image_size=[64,64]", "recipe.total_batch_size=8"]
    said = run_command(
        "train", *few, "data.channels=4", f"init_from={run / 'run/model'}", f"run_folder={tmp_path / 'a'}"
    )
    assert "kernels of" not in said
    build = build_model("nano", num_classes=2, image_size=(64, 64))
    card = ModelCard(build.architecture, ("bright", "dark"), (3, 7))
    write_model_folder(tmp_path / "rgb", build.state_dict(), card)
    said = run_command(
        "train", *few, "data.channels=4", f"init_from={tmp_path / 'rgb'}", f"run_folder={tmp_path / 'b'}"
    )
    assert "the kernels of 4 channels begin with those of red, green and blue" in said
    said = run_command("train", *few, f"init_from={run / 'run/model'}", f"run_folder={tmp_path / 'c'}", expect=2)
    assert "takes images of 4 channels, and this model of 3: set data.channels=4" in said
