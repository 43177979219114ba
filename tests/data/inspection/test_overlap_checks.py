"""Images of both parts, told by their files and by their annotations."""

from __future__ import annotations

from rtdetrv2_train.data.inspection.overlap_checks import annotation_findings, file_findings
from tests.data.inspection.small_sets import CLEAN, by_check, table

OTHER = [[("cat", (11, 10, 40, 30)), ("dog", (70, 25, 50, 60))], [("dog", (0, 0, 200, 150))], []]


def test_other_images_with_names_of_their_own_are_no_overlap() -> None:
    train = table(CLEAN)
    val = table(OTHER, names=["a.jpg", "b.jpg", "c.jpg"])
    assert list(file_findings(train, "val", val)) == []
    assert list(annotation_findings(train, "val", val)) == []


def test_equal_names_in_other_folders_are_no_overlap() -> None:
    assert list(file_findings(table(CLEAN, folder="set/train"), "val", table(OTHER, folder="set/val"))) == []


def test_the_same_files_are_found_through_nested_folders() -> None:
    train = table(CLEAN, names=["p/0.jpg", "p/1.jpg", "p/2.jpg", "p/3.jpg"], folder="set")
    found = by_check(file_findings(train, "val", table(OTHER, names=["2.jpg", "x.jpg", "3.jpg"], folder="set/p")))
    assert list(found) == ["shared_files"]
    assert found["shared_files"].images.tolist() == [0, 2]
    assert found["shared_files"].beside_images.tolist() == [2, 3]


def test_versions_of_one_picture_are_told_by_their_names() -> None:
    hashes = [f"street_jpg.rf.{letter * 8}.jpg" for letter in "abc"]
    train = table(CLEAN, names=[hashes[0], hashes[1], "x_jpg.rf.0.jpg", "y.jpg"], folder="train")
    val = table(OTHER, names=[hashes[2], "z_jpg.rf.1.jpg", "y.jpg"], folder="valid")
    found = by_check(file_findings(train, "val", val))
    assert list(found) == ["shared_versions"]
    assert found["shared_versions"].images.tolist() == [0]


def test_the_very_boxes_of_another_image_are_found_in_any_order() -> None:
    val = table([OTHER[0], [*reversed(CLEAN[2])], CLEAN[1]], folder="val")
    found = by_check(annotation_findings(table(CLEAN), "val", val))
    assert found["shared_boxes"].images.tolist() == [1]  # one box alone would be the same by chance
    assert found["shared_boxes"].beside_images.tolist() == [2]
    swapped = [[(("dog", "cat")[name == "dog"], box) for name, box in rows] for rows in CLEAN]
    assert list(annotation_findings(table(CLEAN), "val", table(swapped, folder="val"))) == []
    larger = table(CLEAN, size=(300, 300), folder="val")
    assert list(annotation_findings(table(CLEAN), "val", larger)) == []
