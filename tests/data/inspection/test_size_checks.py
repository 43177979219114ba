"""Objects that are too small for the input, images with too many, and images with none."""

from __future__ import annotations

import numpy as np
import pytest

from rtdetrv2_train.data.inspection.object_sizes import sides_at
from rtdetrv2_train.data.inspection.recommendations import recommendations
from rtdetrv2_train.data.inspection.size_checks import size_findings
from tests.data.inspection.small_sets import CLEAN, Row, by_check, table

INPUT = (640, 640)
LARGE = (1500, 2000)


def boxes(count: int, side: float, image: tuple[int, int] = LARGE) -> list[Row]:
    """So many boxes of a side that do not lie in the same place."""
    generator = np.random.default_rng(count)
    low = generator.uniform(0, [image[1] - side, image[0] - side], (count, 2))
    return [("cat", (x, y, side, side)) for x, y in low.tolist()]


def test_nothing_is_found_where_objects_are_large() -> None:
    assert list(size_findings("train", table(CLEAN[:3]), INPUT, 300)) == []


def test_sides_are_those_at_the_input() -> None:
    made = table([[("cat", (0, 0, 200, 75)), ("cat", (0, 0, 50, 37.5))]])
    assert sides_at(made, (300, 400)).tolist() == pytest.approx([np.sqrt(400 * 150), np.sqrt(100 * 75)])


def test_small_boxes_and_images_of_nothing_else_are_found() -> None:
    made = table([boxes(10, 10), boxes(10, 300), boxes(3, 12)], size=LARGE)
    found = by_check(size_findings("train", made, INPUT, 300))
    assert {name: each.count for name, each in found.items()} == {"small_boxes": 13, "unseen_images": 2}
    assert found["unseen_images"].images.tolist() == [0, 2]
    assert "57% of the boxes" in found["small_boxes"].message


def test_images_with_more_boxes_than_queries_and_with_none_are_found() -> None:
    made = table([boxes(31, 80), [], boxes(4, 200)], size=LARGE)
    found = by_check(size_findings("train", made, INPUT, 30))
    assert {name: each.images.tolist() for name, each in found.items()} == {
        "crowded_images": [0],
        "images_without_boxes": [1],
    }
    assert "num_queries=100" in found["crowded_images"].remedy
    mostly_empty = table([[], [], boxes(4, 200)], size=LARGE)
    assert by_check(size_findings("train", mostly_empty, INPUT, 30))["images_without_boxes"].level == "warning"


def advice(made: object) -> dict[str, object]:
    return {each.key: each.value for each in recommendations(made, INPUT)}  # type: ignore[arg-type]


def test_a_larger_input_is_recommended_for_small_objects_and_tiles_for_tiny_ones() -> None:
    assert advice(table([boxes(20, 120)] * 3, size=LARGE)) == {"model": "r18vd", "model.image_size": [640, 640]}
    assert advice(table([boxes(20, 15)] * 3, size=LARGE))["model.image_size"] == [960, 960]
    tiny = advice(table([boxes(20, 12, (6000, 8000))] * 3, size=(6000, 8000)))
    assert tiny == {"model": "r18vd", "model.image_size": [1280, 1280], "tile": 1280}


def test_the_input_gets_the_shape_of_images_and_no_more_pixels_than_they_have() -> None:
    wide = (1080, 1920)
    assert advice(table([boxes(9, 200, wide)] * 3, size=wide))["model.image_size"] == [480, 864]
    small = (128, 128)
    assert advice(table([boxes(9, 40, small)] * 3, size=small))["model.image_size"] == [128, 128]
    small_objects = advice(table([boxes(9, 6, small)] * 3, size=small))
    assert small_objects["model.image_size"] == [640, 640]


def test_rare_classes_are_to_be_repeated_and_equal_ones_are_not() -> None:
    cat, dog, bird = ([(name, (10, 10, 90, 90))] for name in ("cat", "dog", "bird"))
    made = table([cat] * 100 + [dog] * 100 + [bird] * 4, ["cat", "dog", "bird"])
    found = {each.key: each for each in recommendations(made, INPUT)}["data.repeat_threshold"]
    assert 0.02 < found.value <= 0.5
    assert found.override == f"data.repeat_threshold={found.value:g}"
    assert "data.repeat_threshold" not in advice(table([cat] * 60 + [dog] * 40))
    assert advice(table([[], []])) == {}
