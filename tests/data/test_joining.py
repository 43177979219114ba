"""Several sets as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.joining import joined

BIRD_AND_CAT = [{"id": 3, "name": "bird"}, {"id": 7, "name": "Cat"}]


def test_classes_are_united_by_name_and_boxes_follow(make_set: Any) -> None:
    one = load_annotations(*make_set(2, name="one"))  # cat 3, dog 7
    two = load_annotations(*make_set(3, name="two", categories=BIRD_AND_CAT))
    both = joined([one, two])
    assert both.class_names == ("cat", "dog", "bird")
    assert both.category_ids == (3, 7, 8)
    assert len(both) == 5
    assert len(set(both.image_ids.tolist())) == 5
    boxes, labels = both.targets(4)
    np.testing.assert_array_equal(boxes, two.targets(2)[0])
    assert labels.tolist() == [2, 0]  # bird, cat
    assert both.path(4).read_bytes() == two.path(2).read_bytes()
    truth = both.ground_truth()
    assert np.bincount(truth.classes).tolist() == [5, 2, 3]
    assert len(truth.images) == 10


def test_ids_that_do_not_meet_stay(make_set: Any) -> None:
    one, (annotation_file, folder) = load_annotations(*make_set(1, name="one")), make_set(1, name="two")
    annotation_file.write_text(annotation_file.read_text().replace("10", "77"))
    assert joined([one, load_annotations(annotation_file, folder)]).image_ids.tolist() == [10, 77]


def test_one_set_stays_as_it_is(make_set: Any) -> None:
    one = load_annotations(*make_set(1))
    assert joined([one]) is one


def test_problems_of_all_sets_are_kept(make_set: Any) -> None:
    broken = {"id": 5, "image_id": 10, "category_id": 3, "bbox": [0, 0, 0, 5]}
    sets = [load_annotations(*make_set(1, name=name, annotations=[broken])) for name in ("one", "two")]
    both = joined(sets)
    assert len(both.problems) == 2
    assert len(both.boxes) == 0
    assert len(both.raw_boxes) == 2


@pytest.mark.parametrize("position", [0, 1])
def test_a_subset_of_joined_sets_is_read_from_the_right_files(make_set: Any, position: int) -> None:
    sets = [load_annotations(*make_set(2, name=name)) for name in ("one", "two")]
    part = joined(sets).subset(np.array([1, 3]))
    assert part.path(position).resolve() == sets[position].path(1).resolve()
