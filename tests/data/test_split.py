"""What belongs together is not parted, and classes keep their shares."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.fingerprints import Fingerprints
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.shapes import draw_shapes_image
from rtdetrv2_train.data.split import split
from rtdetrv2_train.errors import UserError

Image = NDArray[np.uint8]


def picture(seed: int, side: int = 160) -> Image:
    return draw_shapes_image(side, (seed, 7))[0]


def write(folder: Path, images: dict[str, Image], labels: dict[str, list[int]] | None = None) -> AnnotationTable:
    """A set of these images; each has a box for each of its labels."""
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for number, (name, image) in enumerate(images.items(), start=1):
        height, width = image.shape[:2]
        cv2.imwrite(str(folder / "images" / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        for label in (labels or {}).get(name, [0]):
            box = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "bbox": [4, 4, 20, 20]}
            annotations.append(box)
    categories = [{"id": label, "name": f"class {label}"} for label in range(4)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))
    return load_annotations(folder / "a.json", folder / "images")


def parted(table: AnnotationTable, together: list[set[str]], seeds: int = 20) -> int:
    """How often images that belong together are on both sides, over several seeds."""
    count = 0
    for seed in range(seeds):
        held_out = split(table, 0.3, seed)
        assert held_out.any()
        assert not held_out.all()
        names = set(table.file_names[held_out].tolist())
        count += sum(bool(group & names) and not group <= names for group in together)
    return count


def variants(image: Image) -> dict[str, Image]:
    """The same picture as people come to have it several times."""
    height, width = image.shape[:2]
    return {
        "saved again": cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
        "halved": cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA),
        "cut": image[height // 50 : -height // 50, width // 50 : -width // 50],
        "brightened": np.clip(image * 1.15 + 10, 0, 255).astype(np.uint8),
    }


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    images = {f"{chr(97 + seed)}.jpg": picture(seed) for seed in range(16)}
    together = []
    for position, (kind, other) in enumerate(variants(picture(0)).items()):
        base = f"{chr(97 + position)}.jpg"
        images[f"zz {kind}.jpg"] = variants(images[base])[kind] if position else other
        together.append({base, f"zz {kind}.jpg"})
    assert parted(write(tmp_path, images), together) == 0


def test_different_pictures_are_far_apart(tmp_path: Path) -> None:
    found = Fingerprints.of(write(tmp_path, {f"{seed}.png": picture(seed) for seed in range(30)}))
    assert found.usable.all()
    assert found.distances(*np.triu_indices(30, 1)).min() > 56


def test_pictures_of_one_colour_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    plain = {f"{grey}.png": np.full((64, 64, 3), grey, np.uint8) for grey in (3, 9)}
    assert not Fingerprints.of(write(tmp_path, plain)).usable.any()


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    images, together = {}, []
    for video in range(8):
        wide = picture(video, 400)
        names = [f"clip{video}_{frame:04d}.jpg" for frame in range(0, 60, 10)]
        images |= {name: wide[100:300, 12 * i : 12 * i + 200] for i, name in enumerate(names)}
        together.append(set(names))
    assert parted(write(tmp_path, images), together) == 0


def test_numbered_pictures_of_different_things_are_no_video(tmp_path: Path) -> None:
    table = write(tmp_path, {f"{number:012d}.jpg": picture(number) for number in range(20)})
    assert split(table, 0.1, 0).sum() == 2


@pytest.mark.parametrize(
    "names",
    [
        ("x_jpg.rf.{0}a.jpg", "x_jpg.rf.{0}b.jpg"),
        ("{0}_0_0_640_640.png", "{0}_512_0_1152_640.png"),
        ("P{0}__1024__0___0.png", "P{0}__1024__0___824.png"),
        ("{0}_tile_1.jpg", "{0}_tile_2.jpg"),
    ],
    ids=["versions of Roboflow's", "slices", "tiles of DOTA", "numbered tiles"],
)
def test_tiles_and_versions_of_one_picture_stay_together(tmp_path: Path, names: tuple[str, str]) -> None:
    images, together = {}, []
    for number in range(10):
        pair = [name.replace("x", f"pic{number}").format(number) for name in names]
        images |= {name: picture(2 * number + side) for side, name in enumerate(pair)}
        together.append(set(pair))
    assert parted(write(tmp_path, images), together) == 0


def test_one_video_is_cut_into_stretches_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = picture(3, 900)
    images = {f"frame_{frame}.jpg": wide[:200, 6 * frame : 6 * frame + 200] for frame in range(100)}
    table = write(tmp_path, images)
    with caplog.at_level(logging.WARNING):
        held_out = split(table, 0.1, 0)
    assert "100 of 100 images, such as 'frame_0.jpg', are alike or of one video" in caplog.text
    frames = np.array([int(name[6:-4]) for name in table.file_names.tolist()])
    assert set(np.bincount(frames[held_out] // 5).tolist()) == {0, 5}
    assert held_out.sum() == 10


def test_each_class_has_its_share(tmp_path: Path) -> None:
    names = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}.png" for n in range(100)]
    labels = {
        name: [0] + [1] * (n % 5 == 0) + [2] * (n % 10 == 3) + [3] * (n in (1, 2)) for n, name in enumerate(names)
    }
    noise = np.random.default_rng(0)
    table = write(tmp_path, {name: noise.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in names}, labels)
    for seed in range(5):
        held_out = split(table, 0.2, seed)
        counts = np.bincount(table.subset(np.flatnonzero(held_out)).labels, minlength=4)
        assert held_out.sum() == pytest.approx(20, abs=2)
        assert counts[1] == pytest.approx(4, abs=1)
        assert counts[2] == pytest.approx(2, abs=1)


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    table = write(tmp_path, {f"{seed}.jpg": picture(seed) for seed in range(20)})
    assert (split(table, 0.2, 0) == split(table, 0.2, 0)).all()
    assert any((split(table, 0.2, 0) != split(table, 0.2, seed)).any() for seed in range(1, 4))


def test_two_images_are_enough_and_one_is_not(tmp_path: Path) -> None:
    assert split(write(tmp_path / "two", {"a.jpg": picture(0), "b.jpg": picture(1)}), 0.1, 0).sum() == 1
    with pytest.raises(UserError, match=r"has one image: it cannot be split, so give data.val"):
        split(write(tmp_path / "one", {"a.jpg": picture(0)}), 0.1, 0)


def test_two_images_that_are_alike_are_parted_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write(tmp_path, {"a.jpg": picture(0), "b.jpg": variants(picture(0))["saved again"]})
    assert split(table, 0.1, 0).sum() == 1
    assert "2 of 2 images, such as 'a.jpg', are alike" in caplog.text


def test_an_image_that_cannot_be_read_is_no_duplicate(tmp_path: Path) -> None:
    table = write(tmp_path, {f"{seed}.jpg": picture(seed) for seed in range(6)})
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / "images" / name).write_bytes(b"no image")
    assert Fingerprints.of(table).usable.tolist() == [False, False, True, True, True, True]


def test_real_images_are_told_apart(shared_data: Any) -> None:
    for labels, images in (
        ("bccd/annotations/instances_train.json", "bccd/JPEGImages"),
        ("tiny_coco/annotations/instances_train2017.json", "tiny_coco/train2017"),
    ):
        found = Fingerprints.of(load_annotations(shared_data / labels, shared_data / images))
        assert found.usable.all()
        assert found.distances(*np.triu_indices(len(found.usable), 1)).min() > 56
        assert not found.is_series(list(range(len(found.usable))))
