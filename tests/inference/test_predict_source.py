"""Predicting on folders, lists, videos and large images, and what is written of it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rtdetrv2_train import Detector, Prediction, UserError, build_model, load_detector, predict_source
from rtdetrv2_train.classes import COCO
from rtdetrv2_train.data.images import pillow_files
from rtdetrv2_train.data.images.decode import read_image
from rtdetrv2_train.inference.sources import open_source
from rtdetrv2_train.inference.tiling import tiles_of, without_repeats
from tests.running import run_command

LOW = 0.35  # a model of made-up weights is never sure


@pytest.fixture(scope="module")
def detector(model_folder: Path) -> Detector:
    return load_detector(model_folder, device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    (folder / "more").mkdir()
    for name, size in (("a.jpg", (90, 140)), ("a.png", (70, 60)), ("more/b.png", (200, 100))):
        Image.fromarray(cv2.resize(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8), size[::-1])).save(folder / name)
    Image.fromarray((np.arange(6400).reshape(80, 80) * 10).astype(np.uint16)).save(folder / "deep.tif")
    (folder / "notes.md").write_text("no image")
    return folder


def test_a_folder_gives_every_format_and_they_agree(detector: Detector, photos: Path, tmp_path: Path) -> None:
    summary = predict_source(detector, photos, tmp_path, ["images", "coco", "yolo", "csv"], threshold=LOW, batch_size=3)
    assert (summary.images, summary.skipped) == (4, ())
    assert {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "images").rglob("*.*")} == {
        "images/a.jpg",
        "images/a.png",
        "images/deep.tif.jpg",
        "images/more/b.png",
    }
    results = json.loads((tmp_path / "predictions.json").read_text())
    lines = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text())))
    assert len(results) == len(lines) == summary.objects > 0
    expected = detector.predict(photos / "more" / "b.png", threshold=LOW)
    own = [result for result in results if result["file_name"] == "more/b.png"]
    assert [result["category_id"] for result in own] == [(3, 5, 7)[label] for label in expected.labels]
    found = np.array([result["bbox"] for result in own])
    np.testing.assert_allclose(found[:, :2] + found[:, 2:], expected.boxes[:, 2:], atol=0.02)
    assert [line["class"] for line in lines if line["image"] == "more/b.png"] == expected.names
    text = np.loadtxt(tmp_path / "labels" / "more" / "b.txt", ndmin=2)
    centres = (expected.boxes[:, :2] + expected.boxes[:, 2:]) / 2 / [100, 200]
    np.testing.assert_allclose(text[:, 1:3], centres, atol=1e-3)
    assert {p.name for p in (tmp_path / "labels").iterdir()} == {"a.txt", "a.png.txt", "deep.txt", "more"}


def test_patterns_lists_and_standard_input_name_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [name for _, name in open_source(f"{photos}/**/*.png").files] == ["a.png", "b.png"]
    (photos / "list.txt").write_text("a.jpg\n\nmore/b.png\n")
    expected = [photos / "a.jpg", photos / "more" / "b.png"]
    assert [path for path, _ in open_source(photos / "list.txt").files] == expected
    for end in ("\n", "\0"):  # the second as of `find -print0`
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{expected[0]}{end}{expected[1]}{end}"))
        assert [path for path, _ in open_source("-").files] == expected


def test_paths_on_standard_input_are_predicted_on(
    model_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'a.jpg'}\n{photos / 'a.png'}\n"))
    run_command("predict", f"checkpoint={model_folder}", "source=-", f"output={tmp_path}", "formats=yolo", "device=cpu")
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"a.txt", "a.png.txt"}


def test_a_pipe_names_images(photos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "list"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(f"{photos / 'a.jpg'}\n",))
    writing.start()
    assert [path for path, _ in open_source(pipe).files] == [photos / "a.jpg"]
    writing.join()


def test_python_gives_paths_and_images_one_by_one(detector: Detector, photos: Path, tmp_path: Path) -> None:
    summary = predict_source(detector, (photos / name for name in ("a.jpg", "a.png")), tmp_path, "csv", threshold=LOW)
    assert (summary.images, summary.skipped) == (2, ())
    found = detector.predict((Image.open(photos / name) for name in ("a.jpg", "a.png")), threshold=LOW)
    assert len(found) == 2
    assert [len(one) for one in found] == [len(detector.predict(photos / n, threshold=LOW)) for n in ("a.jpg", "a.png")]


def test_one_class_is_a_list_of_one(detector: Detector, photos: Path, tmp_path: Path) -> None:
    summary = predict_source(detector, photos / "a.jpg", tmp_path, "csv", threshold=LOW, classes="green")
    lines = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert {line["class"] for line in lines} == {"green"}
    assert len(lines) == summary.objects
    with pytest.raises(UserError, match="there is no class 'gren': did you mean 'green'"):
        predict_source(detector, photos / "a.jpg", tmp_path, classes="gren")
    with pytest.raises(UserError, match="formats is empty"):
        predict_source(detector, photos / "a.jpg", tmp_path, [])


def test_image_ids_are_those_of_a_file_without_annotations(detector: Detector, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "image_info_test-dev.json"
    image = {"id": 41, "file_name": "a.jpg", "height": 60, "width": 60}
    for content in ({"images": [image], "categories": []}, {"images": [image]}):
        file.write_text(json.dumps(content))
        predict_source(detector, photos / "a.jpg", tmp_path, "coco", threshold=LOW, annotations=file)
        assert {result["image_id"] for result in json.loads((tmp_path / "predictions.json").read_text())} == {41}
    file.write_text('{"images": [{"id": 41}]}')
    with pytest.raises(UserError, match="an image needs a"):
        predict_source(detector, photos / "a.jpg", tmp_path, "coco", annotations=file)


def test_leftovers_in_a_folder_are_passed_over(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ".ipynb_checkpoints/a-copy.jpg", "._a.jpg", "__MACOSX/._a.jpg", "Thumbs.db", ".DS_Store", "@eaDir/a.jpg"
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    shutil.copy(photos / "a.jpg", tmp_path)
    Image.open(photos / "a.png").save(tmp_path / "b.webp")
    with caplog.at_level("WARNING"):
        source = open_source(tmp_path)
    assert [name for _, name in source.files] == ["a.jpg", "b.webp"]
    assert [frame.problem for frame in source] == ["", ""]
    assert not caplog.records
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("")
    with caplog.at_level("WARNING"):
        open_source(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"5 files in '{tmp_path}' are no images and are passed over: 0.txt, 1.txt, 2.txt, ..."
    ]


def test_avif_and_heic_are_read_or_say_what_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "b.avif").write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "registered_extensions", dict)
    assert [frame.problem for frame in open_source(tmp_path)] == [
        'HEIC needs `pip install "rtdetrv2-train[heic]"`, or convert it to JPEG',
        "AVIF needs Pillow 11.3 or later, or convert it to JPEG",
    ]
    monkeypatch.undo()
    if ".avif" in Image.registered_extensions():
        Image.new("RGB", (64, 32), "red").save(tmp_path / "b.avif")
        assert read_image(tmp_path / "b.avif").shape == (32, 64, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "nothing to predict on: give source="),
        ("nowhere.jpg", r"there is no source 'nowhere\.jpg'"),
        ("no/*.png", "there is no source"),
        ("empty", "the folder 'empty' has no image in it"),
        ("broken.mp4", r"the video 'broken\.mp4' cannot be opened"),
        ("list.txt", r"'list\.txt' names no image"),
    ],
)
def test_no_input_is_a_clear_error(
    source: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(UserError, match=message):
        open_source(source)


def test_broken_files_are_skipped_by_name_and_the_exit_status_says_so(
    model_folder: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (folder / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    (folder / "text.png").write_text("no image")
    command = [f"checkpoint={model_folder}", f"source={folder}", f"output={tmp_path / 'out'}", "device=cpu"]
    output = run_command("predict", *command, f"threshold={LOW}", expect=1)
    assert "skipped cut.jpg: " in output
    assert "skipped text.png: " in output
    assert "in 1 images, 2 skipped" in output
    assert [p.name for p in (tmp_path / "out" / "images").iterdir()] == ["good.jpg"]
    assert "error: nothing to predict on" in run_command("predict", *command, "source=null", expect=2)


def test_a_video_becomes_a_video(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for number in range(12):
        frame = np.full((64, 96, 3), 60, np.uint8)
        cv2.circle(frame, (8 * number, 30), 9, (30, 30, 220), -1)
        writer.write(frame)
    writer.release()
    summary = predict_source(detector, path, tmp_path / "out", ["images", "csv"], threshold=LOW)
    assert summary.images == 12
    capture = cv2.VideoCapture(str(tmp_path / "out" / "video.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert predict_source(detector, path, tmp_path / "few", threshold=LOW, max_frames=5).images == 5


def test_classes_can_be_chosen(detector: Detector, photos: Path, tmp_path: Path) -> None:
    predict_source(detector, photos / "a.jpg", tmp_path, ["csv"], threshold=LOW)
    everything = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    chosen = everything[0]["class"]
    predict_source(detector, photos / "a.jpg", tmp_path, ["csv"], threshold=LOW, classes=[chosen])
    assert list(csv.DictReader((tmp_path / "predictions.csv").open())) == [
        r for r in everything if r["class"] == chosen
    ]
    with pytest.raises(UserError, match="there is no class 'pink': choose of red, green, blue"):
        predict_source(detector, photos, tmp_path, classes=["pink"])
    with pytest.raises(UserError, match="there is no format 'cvs': did you mean 'csv'"):
        predict_source(detector, photos, tmp_path, ["cvs"])


def test_half_precision_finds_nearly_the_same(detector: Detector, photos: Path) -> None:
    whole = detector.predict(photos / "a.jpg", threshold=0)
    half = replace(detector, half=True).predict(photos / "a.jpg", threshold=0)
    assert not np.array_equal(half.scores, whole.scores)
    np.testing.assert_allclose(half.scores[:50], whole.scores[:50], atol=0.05)


def test_tiles_cover_the_image_and_overlap() -> None:
    for height, width in ((100, 100), (101, 350), (1000, 64), (640, 641)):
        seen = np.zeros((height, width), dtype=int)
        for left, top, right, bottom in tiles_of(height, width, 100, 0.2):
            assert right - left == min(100, width)
            assert bottom - top == min(100, height)
            seen[top:bottom, left:right] += 1
        assert seen.min() >= 1
        if width > 100:
            assert (seen[0] > 1).sum() >= 20
    with pytest.raises(UserError, match="tile is 8: give a whole number of 32 or more"):
        tiles_of(100, 100, 8, 0.2)


def test_what_two_tiles_saw_counts_once_and_the_whole_beats_its_part() -> None:
    boxes = np.float32([[0, 0, 50, 100], [0, 0, 100, 100], [0, 0, 99, 99], [300, 0, 340, 40], [302, 0, 342, 40]])
    labels, scores = np.array([0, 0, 0, 1, 1]), np.float32([0.9, 0.6, 0.5, 0.8, 0.7])
    cut = np.array([True, False, False, False, False])
    # The last two overlap, but come from one tile, where the model told them apart.
    assert without_repeats(boxes, labels, scores, cut, np.array([0, 1, 2, 3, 3])).tolist() == [3, 4, 1]
    assert without_repeats(boxes, np.arange(5), scores, cut, np.arange(5)).tolist() == [0, 3, 4, 1, 2]


class _Spots:
    """Finds white spots of at least 8 pixels in the model's input, as a detector that is blind to smaller ones."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(self, arrays: list[np.ndarray], *_: object) -> list[Prediction]:
        found = []
        for array in arrays:
            height, width = array.shape[:2]
            small = cv2.resize(array, (128, 128), interpolation=cv2.INTER_AREA)[..., 0]
            _, _, stats, _ = cv2.connectedComponentsWithStats((small > 128).astype(np.uint8))
            boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:] if min(w, h) >= 4]
            scale = np.float32([width, height, width, height]) / 128
            corners = np.float32(boxes).reshape(-1, 4) * scale
            number = len(corners)
            found.append(Prediction(np.zeros(number, int), ["red"] * number, np.full(number, 0.9, np.float32), corners))
        return found


def test_tiling_finds_small_objects_once_where_the_whole_image_shows_none(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((700, 1000, 3), np.uint8)
    places = [(50, 60), (420, 300), (640, 480), (905, 655)]
    for x, y in places:
        image[y : y + 14, x : x + 14] = 255
    image[300:600, 100:350] = 255
    monkeypatch.setattr(Detector, "_predict", lambda self, images, *_: _Spots(self)(images))
    assert len(detector.predict(image)) == 1
    found = detector.predict(image, tile=256, overlap=0.2)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    small = found.boxes[sides.max(1) < 30]
    assert len(small) == len(places)
    np.testing.assert_allclose(small[np.argsort(small[:, 0]), :2], places, atol=6)
    assert (sides.max(1) > 280).sum() == 1
    assert torch.is_grad_enabled()


def coco_file(path: Path, images: dict[int, str], categories: dict[int, str]) -> Path:
    content = {
        "images": [{"id": id_, "file_name": name, "height": 60, "width": 60} for id_, name in images.items()],
        "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
        "annotations": [],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def twins(tmp_path: Path, photos: Path) -> Path:
    """Two images of one name in two folders."""
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "1.jpg").write_bytes((photos / "a.jpg").read_bytes())
    return tmp_path / "in"


COLOURS = {3: "red", 5: "green", 7: "blue"}


def results_of(detector: Detector, source: Path, listed: Path, folder: Path) -> list[dict[str, Any]]:
    predict_source(detector, source, folder, ["coco"], threshold=LOW, annotations=listed)
    return json.loads((folder / "predictions.json").read_text())


@pytest.mark.parametrize(("source", "prefix"), [("", ""), ("", "in/"), ("*/1.jpg", ""), ("*/1.jpg", "in/")])
def test_images_of_one_name_have_the_ids_of_their_paths(
    detector: Detector, twins: Path, tmp_path: Path, source: str, prefix: str
) -> None:
    listed = coco_file(tmp_path / "val.json", {8: f"{prefix}b/1.jpg", 6: f"{prefix}a/1.jpg", 1: "c/1.jpg"}, COLOURS)
    results = results_of(detector, twins / source, listed, tmp_path / "out")
    assert {(Path(r["file_name"]).parts[-2], r["image_id"]) for r in results} == {("a", 6), ("b", 8)}
    assert {r["image_id"] for r in results_of(detector, twins / "a/1.jpg", listed, tmp_path / "out")} == {6}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({1: "1.jpg"}, r"the images 'a/1\.jpg' and 'b/1\.jpg' are both '1\.jpg' of '.*val\.json'"),
        ({1: "a/1.jpg"}, r"annotations= does not list the image 'b/1\.jpg'"),
    ],
)
def test_an_image_whose_id_is_in_doubt_is_refused_before_anything_is_written(
    detector: Detector, twins: Path, tmp_path: Path, images: dict[int, str], message: str
) -> None:
    listed = coco_file(tmp_path / "val.json", images, COLOURS)
    with pytest.raises(UserError, match=message):
        results_of(detector, twins, listed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_categories_have_the_ids_of_their_names_in_the_annotations(
    detector: Detector, twins: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, images = twins / "a/1.jpg", {1: "1.jpg"}
    names = detector.predict(image, threshold=LOW).names
    listed = coco_file(tmp_path / "val.json", images, {9: "Red", 4: "blue"})
    ids = [result["category_id"] for result in results_of(detector, image, listed, tmp_path / "out")]
    assert ids == [{"red": 9, "blue": 4}[name] for name in names if name != "green"]
    assert len(ids) < len(names)
    assert "lacks classes of the model; COCO results are without them: 'green'" in caplog.text
    nameless = replace(detector, class_names=("LABEL_0", "LABEL_1", "LABEL_2"), category_ids=())
    listed = coco_file(tmp_path / "val.json", images, {9: "x", 4: "y", 30: "z"})
    ids = [result["category_id"] for result in results_of(nameless, image, listed, tmp_path / "out")]
    assert ids == [{"red": 4, "green": 9, "blue": 30}[name] for name in names]
    with pytest.raises(UserError, match=r"have no class in common: 'y' \(id 4\), .* give class_names="):
        results_of(detector, image, listed, tmp_path / "out")


def test_weights_of_eighty_classes_without_names_predict_those_of_coco(tmp_path: Path, photos: Path) -> None:
    torch.save(build_model("nano", num_classes=80).state_dict(), tmp_path / "weights.pth")
    detector = load_detector(tmp_path / "weights.pth", model="nano", device="cpu")
    assert detector.class_names[::79] == ("person", "toothbrush")
    predict_source(detector, photos / "a.jpg", tmp_path, ["coco"], threshold=0)
    ids = [result["category_id"] for result in json.loads((tmp_path / "predictions.json").read_text())]
    assert ids == [tuple(COCO)[label] for label in detector.predict(photos / "a.jpg", threshold=0).labels]


@pytest.mark.parametrize("orientation", [3, 6])
def test_predictions_are_upright_as_exif_says(
    detector: Detector, photos: Path, tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(photos / "a.png").save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    expected = detector.predict(upright, threshold=LOW)
    for image in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(detector.predict(image, threshold=LOW).boxes, expected.boxes)
        tiled = detector.predict(image, threshold=LOW, tile=40)
        np.testing.assert_array_equal(tiled.boxes, detector.predict(upright, threshold=LOW, tile=40).boxes)
    predict_source(detector, tmp_path / "a.png", tmp_path / "out", ["images", "csv"], threshold=LOW)
    assert Image.open(tmp_path / "out/images/a.png").size == upright.shape[1::-1]
    lines = list(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert [float(line["left"]) for line in lines] == pytest.approx(expected.boxes[:, 0].tolist(), abs=0.06)


@pytest.mark.parametrize("turned", [False, True])
def test_results_for_an_annotation_file_are_in_its_frame(
    detector: Detector, photos: Path, tmp_path: Path, turned: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(photos / "a.png")
    image.save(tmp_path / "a.png", exif=exif)
    width, height = image.size[::-1] if turned else image.size
    listed = {"id": 5, "file_name": "a.png", "width": width, "height": height}
    categories = [{"id": number, "name": name} for number, name in enumerate(detector.class_names)]
    (tmp_path / "set.json").write_text(json.dumps({"images": [listed], "annotations": [], "categories": categories}))
    predict_source(detector, tmp_path / "a.png", tmp_path, ["coco"], threshold=LOW, annotations=tmp_path / "set.json")
    seen = ImageOps.exif_transpose(Image.open(tmp_path / "a.png")) if turned else image
    found = np.array([result["bbox"] for result in json.loads((tmp_path / "predictions.json").read_text())])
    expected = detector.predict(np.asarray(seen), threshold=LOW).boxes
    np.testing.assert_allclose(found[:, :2] + found[:, 2:], expected[:, 2:], atol=1e-3)


def test_deep_images_are_predicted_on_as_they_were_trained_on(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (80, 80))
    Image.fromarray((20000 + levels * 5).astype(np.uint16)).save(tmp_path / "thermal.tif")
    thermal = replace(detector, pixel_range=(20000.0, 21275.0))
    expected = detector.predict(levels.astype(np.uint8), threshold=LOW)
    for image in (tmp_path / "thermal.tif", Image.open(tmp_path / "thermal.tif")):
        np.testing.assert_array_equal(thermal.predict(image, threshold=LOW).scores, expected.scores)
    summary = predict_source(thermal, tmp_path / "thermal.tif", tmp_path / "out", ["csv"], threshold=LOW)
    assert summary.objects == len(expected)
    assert "read as those of 16 bits" not in caplog.text
    predict_source(detector, tmp_path / "thermal.tif", tmp_path / "out", ["csv"], threshold=LOW)
    assert "values from 200" in caplog.text
    assert "are read as those of 16 bits" in caplog.text


def test_tiles_read_images_beyond_the_limit(
    detector: Detector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_files, "_MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    whole = predict_source(detector, photos / "a.jpg", tmp_path, ["csv"], threshold=LOW)
    assert (whole.images, len(whole.skipped)) == (0, 1)
    assert "only prediction with tile= reads it" in whole.skipped[0]
    assert predict_source(detector, photos / "a.jpg", tmp_path, ["csv"], threshold=LOW, tile=64).images == 1
    assert len(detector.predict(photos / "a.png", threshold=LOW, tile=64)) > 0
