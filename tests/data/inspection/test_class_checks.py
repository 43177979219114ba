"""Classes that are one, empty, rare, or of one part only."""

from __future__ import annotations

import pytest

from rtdetrv2_train.data.inspection.class_checks import class_findings, images_of_classes, same_classes
from tests.data.inspection.small_sets import CLEAN, by_check, table

TWO = [[("cat", (10, 10, 40, 30)), ("dog", (70, 20, 50, 60))]]


def test_nothing_is_found_where_both_parts_have_enough_of_each_class() -> None:
    parts = {"train": table(TWO * 40), "val": table(TWO * 10)}
    assert list(class_findings(parts)) == []
    assert images_of_classes(parts["train"]).tolist() == [40, 40]


def test_images_are_counted_once_for_each_class() -> None:
    assert images_of_classes(table([*CLEAN, []])).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["cat", "dog"], []),
        (["Cat", "dog", "cat"], [[0, 2]]),
        (["traffic light", "traffic_light", "TrafficLight", "car"], [[0, 1, 2]]),
        (["dog", "dog "], [[0, 1]]),
        (["class 1-1", "class 11", "class 1 1"], [[0, 2]]),
        (["cat", "cat"], [[0, 1]]),
    ],
)
def test_names_that_differ_in_spelling_only_are_found(names: list[str], groups: list[list[int]]) -> None:
    assert same_classes(names) == groups


def test_one_class_under_two_names_is_found_with_the_boxes_of_the_rarer_name() -> None:
    made = table([*TWO * 40, *[[("Dog", (10, 10, 60, 60))]] * 12], ["cat", "dog", "Dog"])
    found = by_check(class_findings({"train": made}))
    assert list(found) == ["same_class_names"]
    assert "'dog' (40 boxes) and 'Dog' (12 boxes)" in found["same_class_names"].message
    assert set(made.raw_labels[found["same_class_names"].boxes].tolist()) == {2}


def test_empty_and_rare_classes_are_found() -> None:
    made = table([*TWO * 40, [("bird", (10, 10, 60, 60))]], ["cat", "dog", "bird", "fish"])
    found = by_check(class_findings({"train": made}))
    assert {name: each.level for name, each in found.items()} == {"empty_classes": "note", "rare_classes": "note"}
    assert "'fish'" in found["empty_classes"].message
    assert "'bird (1)'" in found["rare_classes"].message
    large = table([*TWO * 240, [("bird", (10, 10, 60, 60))]], ["cat", "dog", "bird"])
    assert by_check(class_findings({"train": large}))["rare_classes"].level == "warning"


def test_classes_of_one_part_only_are_found() -> None:
    train = table([*TWO * 40, *[[("bird", (10, 10, 60, 60))]] * 10], ["cat", "dog", "bird"])
    val = table([*TWO * 10, [("fish", (10, 10, 60, 60))]], ["dog", "cat", "fish"])
    found = by_check(class_findings({"train": train, "val": val}))
    assert {(each.check, each.level, each.part) for each in found.values()} == {("untrained_classes", "warning", "val")}
    assert "'fish'" in found["untrained_classes"].message
    val = table(TWO * 10, ["dog", "cat", "bird"])
    found = by_check(class_findings({"train": train, "val": val}))
    assert list(found) == ["unmeasured_classes"]


def test_shares_that_differ_between_parts_are_found_where_there_are_enough_images() -> None:
    cat, dog = [[("cat", (10, 10, 40, 30))]], [[("dog", (70, 20, 50, 60))]]
    train, val = table([*cat * 100, *dog * 100]), table([*cat * 90, *dog * 10])
    found = by_check(class_findings({"train": train, "val": val}))
    assert list(found) == ["different_class_shares"]
    assert "dog (50.0% and 10.0%)" in found["different_class_shares"].message
    assert list(class_findings({"train": train, "val": table([*cat * 18, *dog * 2])})) == []
