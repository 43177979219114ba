"""Images that are not as annotated, cannot be read, or are there twice; on files, as the command looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.inspection.findings import Finding
from tests.data.inspection.small_sets import inspected, picture, write_set


def pictures(count: int, first: int = 0) -> dict[str, NDArray[np.uint8]]:
    return {f"{number}.jpg": picture(number) for number in range(first, first + count)}


def found_in(root: Path, **reading: Any) -> dict[tuple[str, str], Finding]:
    """Findings of a set by part and check, but for those on how few images there are."""
    findings = inspected(root, root / "seen", **reading).findings
    return {(each.part, each.check): each for each in findings if each.check != "rare_classes"}


def names(root: Path, finding: Finding) -> list[str]:
    """The files that a finding is about; images have the order of their names here."""
    ordered = sorted((root / finding.part).iterdir(), key=lambda path: (len(path.stem), path.stem))
    return [ordered[image].name for image in finding.images.tolist()]


def test_nothing_is_found_in_a_clean_set(tmp_path: Path) -> None:
    assert found_in(write_set(tmp_path / "set", {"train": pictures(12), "val": pictures(6, 12)})) == {}


def test_missing_damaged_and_unlisted_images_are_found(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": pictures(10)})
    (root / "train" / "3.jpg").rename(root / "train" / "not listed.jpg")
    damaged = root / "train" / "5.jpg"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    found = found_in(root)
    assert set(found) == {("train", check) for check in ("missing_images", "unreadable_images", "unlisted_images")}
    assert found["train", "missing_images"].level == found["train", "unreadable_images"].level == "error"
    assert found["train", "unreadable_images"].notes[0].startswith("5.jpg: ")
    assert list(found["train", "unlisted_images"].notes) == ["not listed.jpg"]


def test_files_of_a_part_that_is_not_looked_at_are_listed(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": pictures(4), "val": pictures(4, 4), "test": pictures(4, 8)})
    for part in ("val", "test"):
        for path in (root / part).iterdir():
            path.rename(root / "train" / path.name)
        (root / part).rmdir()
    assert found_in(root) == {}


@pytest.mark.parametrize(("orientation", "check"), [(1, ""), (6, "undecided_exif"), (3, "undecided_exif")])
def test_orientations_that_no_size_decides_about_are_found(tmp_path: Path, orientation: int, check: str) -> None:
    root = write_set(tmp_path / "set", {"train": pictures(6)})
    path = root / "train" / "2.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)
    found = found_in(root)
    assert [each for _, each in found] == ([check] if check else [])
    if check:
        assert found["train", check].images.tolist() == [2]


def test_an_annotated_size_that_exif_explains_is_right(tmp_path: Path) -> None:
    entry = {"width": 150, "height": 200}
    root = write_set(tmp_path / "set", {"train": pictures(6)}, train={"2.jpg": entry, "4.jpg": entry})
    path = root / "train" / "2.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    found = found_in(root)
    assert list(found) == [("train", "swapped_sizes")]
    assert found["train", "swapped_sizes"].images.tolist() == [4]


def test_other_sizes_are_found_with_their_factor(tmp_path: Path) -> None:
    entry = {"width": 400, "height": 300}
    root = write_set(tmp_path / "set", {"train": pictures(6)}, train={"1.jpg": entry, "5.jpg": entry})
    found = found_in(root)["train", "other_sizes"]
    assert found.images.tolist() == [1, 5]
    assert "0.5 times as wide and 0.5 times as high" in found.message
    assert found.notes[0] == "400 x 300 annotated, 200 x 150 stored"


def deep(seed: int) -> NDArray[np.uint16]:
    grey = np.asarray(cv2.cvtColor(picture(seed), cv2.COLOR_RGB2GRAY))
    return (grey.astype(np.uint16) * 16).astype(np.uint16)


def test_twelve_bits_are_noted_where_their_range_is_known_and_flat_where_it_is_not(tmp_path: Path) -> None:
    images = {f"{number}.png": deep(number) for number in range(6)}
    root = write_set(tmp_path / "set", {"train": images})  # type: ignore[dict-item]
    found = found_in(root)
    assert [(each.check, each.level, each.count) for each in found.values()] == [("deep_images", "note", 6)]
    found = found_in(root, pixel_range=None)
    assert [(each.check, each.level, each.count) for each in found.values()] == [("flat_images", "warning", 6)]
    assert found["train", "flat_images"].remedy.startswith("data.pixel_range=[")


def test_images_of_one_colour_are_found(tmp_path: Path) -> None:
    black = np.zeros((150, 200, 3), np.uint8)
    root = write_set(tmp_path / "set", {"train": pictures(4) | {"8.jpg": black, "9.jpg": black + 200}})
    found = found_in(root)["train", "plain_images"]
    assert found.images.tolist() == [4, 5]


def variants(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """The same picture as people come to have it again: copies first, then near-duplicates."""
    height, width = pixels.shape[:2]
    half = np.asarray(cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    cut = pixels[2:-2, 3:-3]
    stamped = pixels.copy()
    cv2.putText(stamped, "12:33", (5, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    darker = (pixels * 0.85).astype(np.uint8)
    return {"saved.png": pixels, "half.png": half, "darker.png": darker, "cut.png": cut, "stamped.png": stamped}


@pytest.mark.parametrize("variant", ["saved.png", "half.png", "darker.png", "cut.png", "stamped.png"])
def test_copies_and_near_duplicates_are_found_within_a_part_and_between_parts(tmp_path: Path, variant: str) -> None:
    is_copy = variant in ("saved.png", "half.png", "darker.png")
    again = {variant: variants(picture(3))[variant]}
    found = found_in(write_set(tmp_path / "within", {"train": pictures(12) | again}))
    check, level = ("duplicates", "warning") if is_copy else ("near_duplicates", "note")
    assert [(each.check, each.level) for each in found.values()] == [(check, level)]
    assert found["train", check].images.tolist() == [12]
    assert found["train", check].beside_images.tolist() == [3]
    found = found_in(write_set(tmp_path / "between", {"train": pictures(12), "val": pictures(5, 20) | again}))
    check = "leaked_copies" if is_copy else "leaked_near_duplicates"
    assert [(each.check, each.level, each.part) for each in found.values()] == [(check, "error", "val")]
    assert (found["val", check].images.tolist(), found["val", check].beside_images.tolist()) == ([5], [3])


def test_many_that_are_alike_are_counted_once_each(tmp_path: Path) -> None:
    copies = {f"c{number}.jpg": picture(3) for number in range(30)}
    root = write_set(tmp_path / "set", {"train": pictures(8) | copies, "val": pictures(3, 20) | {"v.jpg": picture(3)}})
    found = found_in(root)
    assert found["train", "duplicates"].count == 30
    assert set(found["train", "duplicates"].beside_images.tolist()) == {3}
    assert "30 of them annotated differently" in found["train", "duplicates"].message
    assert found["val", "leaked_copies"].count == 1
    assert set(found) == {("train", "duplicates"), ("val", "leaked_copies")}


def test_real_photographs_and_microscope_images_give_no_false_alarm(shared_data: Path, tmp_path: Path) -> None:
    coco = inspected(shared_data / "tiny_coco", tmp_path / "coco")
    alarms = {(each.check, each.part, each.count) for each in coco.findings if each.level != "note"}
    assert alarms == {("untrained_classes", "val", 10), ("contradictory_boxes", "val", 2)}  # looked at: both are true
    cells = inspected(shared_data / "bccd", tmp_path / "cells")
    assert {(each.check, each.part, each.count) for each in cells.findings} == {
        ("leaked_near_duplicates", "val", 1),  # images 37 and 38 show the same cells
        *{("no_area", "train", 1), ("no_area", "val", 1)},
        *{("doubled_boxes", "train", 4), ("doubled_boxes", "val", 2)},
    }
