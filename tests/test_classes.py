"""Classes of two sources are matched by name."""

from __future__ import annotations

import pytest

from rtdetrv2_train.classes import COCO, match_classes, usual_ids
from rtdetrv2_train.errors import UserError


@pytest.mark.parametrize(
    ("here", "there", "matched"),
    [
        (["x", "N/A", "y"], ["n/a", "Y", "N/A"], [None, 2, 1]),
        (["a", "A"], ["A", "a"], [1, 0]),
        (["A"], ["a", "a "], [None]),
        (["a", "a "], ["A"], [None, None]),
        (["A", "a"], ["a"], [None, 0]),
        (["b", "a", "a"], ["a", "b", "a"], [1, 0, 2]),
        (["Traffic  Light"], ["traffic light"], [0]),
        (["diningtable", "tv monitor", "aeroplane"], ["airplane", "dining table", "tv"], [1, 2, 0]),
        (["sofa", "couch"], ["couch"], [None, 0]),
        (["x"], [], [None]),
        ([], ["x"], []),
    ],
)
def test_an_exact_name_comes_first_and_others_match_where_there_is_no_doubt(
    here: list[str], there: list[str], matched: list[int | None]
) -> None:
    assert match_classes(here, there) == matched


def test_two_classes_of_one_name_cannot_be_matched_to_one() -> None:
    with pytest.raises(UserError, match=r"'a' is the name of 2 classes here and of 1 there: give every class"):
        match_classes(["a", "a"], ["a", "b"])


def test_classes_of_coco_without_ids_have_those_of_coco() -> None:
    names = list(COCO.values())
    assert usual_ids(names) == tuple(COCO)
    assert usual_ids(["sofa" if name == "couch" else name for name in names])[56:58] == (62, 63)
    assert usual_ids(names[:3]) == usual_ids(["x", "y", "z"]) == (1, 2, 3)
