"""Boxes that cannot be right are found, and those that can are not."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetrv2_train.data.inspection.box_checks import box_findings
from rtdetrv2_train.data.inspection.same_places import same_places
from tests.data.inspection.small_sets import CLEAN, Row, by_check, table

CORNERS: list[Row] = [("cat", (90, 60, 150, 120)), ("dog", (100, 10, 160, 70)), ("cat", (20, 90, 60, 140))]


def test_nothing_is_found_in_a_clean_set() -> None:
    assert list(box_findings("train", table(CLEAN))) == []
    assert list(box_findings("train", table([[]]))) == []


@pytest.mark.parametrize(
    ("check", "rows", "wrong"),
    [
        ("no_area", [("cat", (10, 10, 0, 20))], 0),
        ("no_area", [("cat", (10, 10, 20, -3))], 0),
        ("no_area", [("cat", (10, 10, 20, 0.4))], 0),
        ("outside", [("cat", (205, 10, 20, 20))], 0),
        ("outside", [("cat", (10, -40, 20, 20))], 0),
        ("reaching_out", [("cat", (190, 10, 20, 20))], 0),
        ("reaching_out", [("cat", (-8, 10, 20, 20))], 0),
        ("doubled_boxes", [("cat", (10, 10, 40, 40)), ("cat", (10, 11, 40, 40))], 1),
        ("contradictory_boxes", [("cat", (10, 10, 40, 40)), ("dog", (10, 11, 40, 40))], 1),
        ("boxes_as_shares", [("cat", (0.1, 0.1, 0.3, 0.2))], 0),
    ],
)  # fmt: skip
def test_each_fault_is_found_where_it_is(check: str, rows: list[Row], wrong: int) -> None:
    faulty = table([*CLEAN, rows])
    before = sum(map(len, CLEAN))
    found = by_check(box_findings("train", faulty))
    assert list(found) == [check]
    assert found[check].count == 1
    assert found[check].boxes.tolist() == [before + wrong]
    assert found[check].images.tolist() == [len(CLEAN)]
    assert next(found[check].items(9)).boxes[0] == before + wrong


@pytest.mark.parametrize(
    "rows",
    [
        [("cat", (198, 10, 4, 20))],  # rounding at the border
        [("cat", (10, 10, 40, 40)), ("cat", (14, 12, 40, 40))],  # two objects side by side
        [("cat", (10, 10, 40, 40)), ("dog", (10, 10, 30, 40))],  # a part of the object
    ],
)
def test_what_may_be_right_is_not_found(rows: list[Row]) -> None:
    assert list(box_findings("train", table([*CLEAN, rows]))) == []


def test_crowd_regions_are_not_looked_at() -> None:
    crowd: list[Row] = [("cat", (0, 0, 0, 0)), ("cat", (10, 10, 40, 30)), ("dog", (300, 300, 10, 10))]
    assert list(box_findings("train", table(CLEAN, crowd=crowd))) == []


def test_corners_in_some_images_are_told_from_boxes_that_reach_out() -> None:
    found = by_check(box_findings("train", table([*CLEAN, CORNERS])))
    assert list(found) == ["boxes_as_corners"]
    assert found["boxes_as_corners"].count == 3
    reaching = [("cat", (90, 60, 50, 50)), ("dog", (150, 10, 70, 60)), ("cat", (20, 90, 60, 50))]
    assert list(by_check(box_findings("train", table([*CLEAN, reaching])))) == ["reaching_out"]


@pytest.mark.parametrize("convention", ["corners", "shares", "centres"])
def test_a_whole_part_in_another_convention_is_one_finding(convention: str) -> None:
    rows = [("cat", (left, top, 40.0, 30.0)) for left in (5, 90, 150) for top in (3, 60, 110)]
    meant = {
        "corners": [(name, (x, y, x + w, y + h)) for name, (x, y, w, h) in rows],
        "centres": [(name, (x + w / 2, y + h / 2, w, h)) for name, (x, y, w, h) in rows],
        "shares": [(name, (x / 200, y / 150, w / 200, h / 150)) for name, (x, y, w, h) in rows],
    }[convention]
    found = by_check(box_findings("train", table([meant, meant])))
    assert list(found) == [f"boxes_as_{convention}"]
    assert found[f"boxes_as_{convention}"].count == found[f"boxes_as_{convention}"].total == 18


def test_annotations_that_the_reader_left_out_are_counted() -> None:
    found = by_check(box_findings("train", table([*CLEAN, [("bird", (1, 2, 30, 40))]])))
    assert list(found) == ["unusable_annotations"]
    assert "unknown category_id 99" in found["unusable_annotations"].message


def test_boxes_of_images_of_wrong_size_are_left_alone() -> None:
    faulty = table([*CLEAN, [("cat", (190, 10, 40, 20))]])
    of_other_size = np.arange(len(faulty)) == len(CLEAN)
    assert list(box_findings("train", faulty, of_other_size)) == []


def test_the_same_places_are_those_that_all_pairs_give() -> None:
    generator = np.random.default_rng(0)
    images = []
    for _ in range(30):
        boxes = np.concatenate([generator.uniform(0, 60, (12, 2)), generator.uniform(20, 60, (12, 2))], axis=1)
        boxes = np.concatenate([boxes, boxes[:6] + generator.normal(0, 0.8, (6, 4))])
        images.append([("cat", tuple(box)) for box in generator.permutation(boxes).tolist()])
    made = table(images)
    for least in (0.5, 0.9):
        expected = []
        for one in range(len(made.raw_boxes)):
            for other in range(one + 1, len(made.raw_boxes)):
                if made.raw_images[one] == made.raw_images[other]:
                    a, b = made.raw_boxes[one], made.raw_boxes[other]
                    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
                    shared = float(sides.clip(min=0).prod())
                    if shared >= least * (a[2:].prod() + b[2:].prod() - shared):
                        expected.append((one, other))
        found = same_places(made, least)
        assert len(expected) > 50
        assert list(zip(found.one.tolist(), found.other.tolist(), strict=True)) == expected
