"""Label errors that were made on purpose in a set whose detections are otherwise plausible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.label_errors.suggestions import find_label_errors
from rtdetrv2_train.suggestion import Suggestion

IMAGES, PLACES = 60, 6
NAMES = ("cat", "dog", "bird")
SIDE = 40.0


@dataclass
class Scene:
    """Labels and detections that can still be changed: rows of (image, class, box), and of (..., score)."""

    labels: list[tuple[int, int, list[float]]]
    found: list[tuple[int, int, list[float], float]]
    crowd: set[int]

    def boxes(self, names: tuple[str, ...] = NAMES) -> EvaluatedBoxes:
        return EvaluatedBoxes(
            image_ids=np.arange(IMAGES) + 100,
            class_names=names,
            truth_images=np.array([row[0] for row in self.labels]),
            truth_classes=np.array([row[1] for row in self.labels]),
            truth_boxes=np.array([row[2] for row in self.labels], dtype=np.float64).reshape(-1, 4),
            truth_crowd=np.array([row in self.crowd for row in range(len(self.labels))], dtype=bool),
            found_images=np.array([row[0] for row in self.found], dtype=np.int64),
            found_classes=np.array([row[1] for row in self.found], dtype=np.int64),
            found_boxes=np.array([row[2] for row in self.found], dtype=np.float64).reshape(-1, 4),
            found_scores=np.array([row[3] for row in self.found], dtype=np.float64),
        )

    def suggestions(self, names: tuple[str, ...] = NAMES) -> list[Suggestion]:
        return find_label_errors(self.boxes(names), np.arange(len(self.labels)))

    def row_of(self, image: int) -> int:
        return next(row for row, label in enumerate(self.labels) if label[0] == image)


def scene(classes: int = 3) -> Scene:
    """Each image has six places, four of them with an object; all are labelled, and nine of ten are found.

    A detection is somewhat beside its object, and its query gives some other class a low score. One of the empty places
    of each image has a detection of a low score.
    """
    rng = np.random.default_rng(0)
    made = Scene([], [], set())
    for image in range(IMAGES):
        places = rng.permutation(PLACES)
        for place in places[:4]:
            box = [20.0 + 100 * (place % 3), 20.0 + 100 * (place // 3), *(SIDE * rng.uniform(0.8, 1.5, 2))]
            label = int(rng.integers(classes))
            made.labels.append((image, label, box))
            if rng.random() < 0.9:
                near = (np.array(box) + rng.normal(0, 1.5, 4)).tolist()
                made.found.append((image, label, near, float(rng.uniform(0.5, 0.95))))
                made.found.append((image, (label + 1) % 3, near, float(rng.uniform(0.01, 0.15))))
        empty = places[4]
        spot = [25.0 + 100 * (empty % 3), 25.0 + 100 * (empty // 3), SIDE, SIDE]
        made.found.append((image, int(rng.integers(classes)), spot, float(rng.uniform(0.05, 0.4))))
    return made


def found_at(made: Scene, row: int) -> tuple[int, int, list[float], float]:
    """The best detection of a label."""
    image, label, box = made.labels[row]
    near = [d for d in made.found if d[:2] == (image, label) and np.abs(np.array(d[2]) - box).max() < 8]
    return max(near, key=lambda detection: detection[3])


def a_found_label(made: Scene) -> int:
    """A label with a confident detection."""
    for row in range(50, len(made.labels)):
        image, label, box = made.labels[row]
        near = [d for d in made.found if d[:2] == (image, label) and np.abs(np.array(d[2]) - box).max() < 8]
        if near and max(d[3] for d in near) > 0.9:
            return row
    raise AssertionError


def test_a_confident_detection_without_a_label_is_a_missing_box() -> None:
    made = scene()
    row = a_found_label(made)
    detection = found_at(made, row)
    del made.labels[row]
    first = made.suggestions()[0]
    assert (first.kind, first.image_id, first.annotation, first.label_box) == (
        "missing box",
        100 + detection[0],
        None,
        None,
    )
    assert (first.found_class, first.found_box) == (NAMES[detection[1]], tuple(detection[2]))
    assert first.found_score == detection[3]
    assert first.suspicion > 0.5


def test_a_label_on_an_object_of_another_class_is_named_with_the_right_one() -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box = made.labels[row]
    made.labels[row] = (image, (label + 2) % 3, box)
    first = made.suggestions()[0]
    assert (first.kind, first.annotation) == ("wrong class", row)
    assert (first.label_class, first.found_class) == (NAMES[(label + 2) % 3], NAMES[label])
    assert first.suspicion > 0.5


@pytest.mark.parametrize("shift", [(0.45, 0.1), (-0.3, 0.5), (0.7, 0.0)])
def test_a_label_beside_its_object_comes_with_the_place_of_the_object_and_only_once(shift: tuple[float, float]) -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box = made.labels[row]
    made.labels[row] = (image, label, [box[0] + shift[0] * box[2], box[1] + shift[1] * box[3], *box[2:]])
    suggestions = made.suggestions()
    first = suggestions[0]
    assert (first.kind, first.annotation) == ("badly placed", row)
    assert first.found_box == pytest.approx(box, abs=8)
    same_place = [s for s in suggestions if s.image_id == 100 + image and s.found_box == first.found_box]
    assert same_place == [first]


def test_a_label_on_nothing_has_no_object() -> None:
    made = scene()
    taken = {tuple(np.floor(np.array(box[:2]) / 100)) for image, _, box in made.labels if image == 7}
    taken |= {tuple(np.floor(np.array(box[:2]) / 100)) for image, _, box, _ in made.found if image == 7}
    free = next((x, y) for x in range(3) for y in range(2) if (x, y) not in taken)
    made.labels.append((7, 1, [30.0 + 100 * free[0], 30.0 + 100 * free[1], SIDE, SIDE]))
    by_row = {s.annotation: s for s in made.suggestions()}
    added = by_row[len(made.labels) - 1]
    assert (added.kind, added.label_class, added.found_box) == ("no object", "dog", None)


def test_labels_that_are_often_missed_are_no_more_suspicious_than_the_detector_is_unreliable() -> None:
    made = scene()
    made.found = [detection for detection in made.found if detection[1] != 0 or detection[0] % 2]  # half of all cats
    missed_cats = [s for s in made.suggestions() if s.kind == "no object" and s.label_class == "cat"]
    assert max((s.suspicion for s in missed_cats), default=0) < 0.1


def test_many_detections_of_one_object_are_one_suggestion() -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box, score = found_at(made, row)
    del made.labels[row]
    for shift in range(1, 6):
        moved = [box[0] + shift, box[1] - shift, *box[2:]]
        made.found.append((image, (label + shift) % 3, moved, score - 0.05 * shift))
    of_place = [s for s in made.suggestions() if s.image_id == 100 + image and s.kind == "missing box"]
    assert len([s for s in of_place if abs(s.found_box[0] - box[0]) < 20]) == 1
    assert of_place[0].found_box == tuple(box)


def test_neither_crowd_regions_nor_what_lies_in_them_is_suspected() -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box, _ = found_at(made, row)
    made.labels[row] = (image, label, [box[0] - 5, box[1] - 5, 70.0, 70.0])
    made.crowd.add(row)  # around an object that has no label of its own
    about = [s for s in made.suggestions() if s.image_id == 100 + image]
    assert row not in [s.annotation for s in about]
    assert tuple(box) not in [s.found_box for s in about]
    made.labels[row] = (image, label, [300.0, 300.0, 90.0, 90.0])  # and on nothing
    assert row not in [s.annotation for s in made.suggestions()]


def test_the_same_score_says_less_where_such_detections_often_have_no_label() -> None:
    reliable, unreliable = scene(), scene()
    for made, others in ((reliable, 0), (unreliable, 30)):
        made.found.append((3, 1, [300.0, 20.0, SIDE, SIDE], 0.85))
        made.found += [(20 + k, 1, [300.0, 20.0, SIDE, SIDE], 0.85) for k in range(others)]
    suspicion = [
        max(s.suspicion for s in made.suggestions() if s.image_id == 103 and s.found_score == 0.85)
        for made in (reliable, unreliable)
    ]
    assert suspicion[0] > 2 * suspicion[1]


def test_a_detection_speaks_for_the_label_that_it_fits_best_only() -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box = made.labels[row]
    made.labels.append((image, label, [box[0] + 0.3 * box[2], box[1], *box[2:]]))  # a second one overlaps it by half
    by_row = {s.annotation: s.suspicion for s in made.suggestions()}
    assert by_row.get(row, 0) < 0.1
    assert by_row[len(made.labels) - 1] > 0.1


def test_suggestions_are_sorted_and_few_where_nothing_is_wrong() -> None:
    made = scene()
    suggestions = made.suggestions()
    values = [s.suspicion for s in suggestions]
    assert values == sorted(values, reverse=True)
    assert all(0.05 <= value <= 1 for value in values)
    assert sum(value > 0.5 for value in values) <= 2
    assert made.suggestions() == suggestions


def test_rows_are_those_of_the_annotation_table() -> None:
    made = scene()
    row = a_found_label(made)
    image, label, box = made.labels[row]
    made.labels[row] = (image, (label + 2) % 3, box)
    rows = np.arange(len(made.labels)) * 2 + 1
    assert find_label_errors(made.boxes(), rows)[0].annotation == 2 * row + 1


def test_a_set_of_one_class_has_no_wrong_classes() -> None:
    made = scene(classes=1)
    made.found = [detection for detection in made.found if detection[1] == 0]
    row = a_found_label(made)
    del made.labels[row]
    suggestions = made.suggestions(("cat",))
    assert suggestions[0].kind == "missing box"
    assert "wrong class" not in {s.kind for s in suggestions}


def test_without_labels_or_without_detections_nothing_is_suspected() -> None:
    made = scene()
    assert Scene([], made.found, set()).suggestions() == []
    assert Scene(made.labels, [], set()).suggestions() == []


def test_broken_boxes_are_left_to_others() -> None:
    made = scene()
    made.labels.append((2, 1, [310.0, 200.0, 0.0, 30.0]))
    assert len(made.labels) - 1 not in [s.annotation for s in made.suggestions()]


def test_a_suggestion_reads_well() -> None:
    plain = Suggestion("wrong class", 0.9, 1, 2, "cat", (0, 0, 1, 1), "dog", (0, 0, 1, 1), 0.8)
    assert str(plain) == "wrong class: cat, found dog 0.80"
    assert str(replace(plain, kind="missing box", label_class=None, label_box=None)) == "missing box: dog 0.80"
    assert str(Suggestion("no object", 0.9, 1, 2, "cat", (0, 0, 1, 1))) == "no object: cat"
