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

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_train import Detector, Prediction, UserError, load_detector, predict_source
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
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{expected[0]}\n{expected[1]}\n"))
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
    file.write_text(json.dumps({"images": [{"id": 41, "file_name": "a.jpg"}], "categories": []}))
    predict_source(detector, photos / "a.jpg", tmp_path, "coco", threshold=LOW, annotations=file)
    assert {result["image_id"] for result in json.loads((tmp_path / "predictions.json").read_text())} == {41}
    file.write_text('{"images": [{"id": 41}]}')
    with pytest.raises(UserError, match="lists no 'images' with 'file_name' and 'id'"):
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
    monkeypatch.setattr(Image, "registered_extensions", dict)
    assert [frame.problem for frame in open_source(tmp_path)] == [
        "HEIC needs `pip install pillow-heif`, or convert it to JPEG",
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
