from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.backends import BACKENDS
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.types import Detections

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 100, "width": 200}
CATEGORY = {"id": 5, "name": "cat"}


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def annotation(box: Any, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 5, "bbox": box, "area": 1.0, "iscrowd": 0, **changes}


def load(tmp_path: Path, annotations: list[Any], **changes: Any) -> AnnotationTable:
    content = {"images": [IMAGE], "annotations": annotations, "categories": [CATEGORY], **changes}
    return load_annotations(write(tmp_path, content), tmp_path)


def test_category_ids_with_gaps_become_contiguous_labels_in_ascending_order(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "z"}, {"id": 2, "name": "b"}, {"id": 17, "name": "m"}]
    boxes = [annotation([0, 0, 10, 10], number, category_id=id_) for number, id_ in enumerate((90, 2, 17), 1)]
    loaded = load(tmp_path, boxes, categories=categories)
    assert loaded.category_ids == (2, 17, 90)
    assert loaded.class_names == ("b", "m", "z")
    assert loaded.targets(0)[1].tolist() == [2, 0, 1]
    assert loaded.num_classes == 3


def test_boxes_become_corners_clipped_to_the_image(tmp_path: Path) -> None:
    loaded = load(tmp_path, [annotation([-5, 90, 50, 30], 1), annotation([150.5, 10, 100, 20.25], 2)])
    boxes, labels = loaded.targets(0)
    assert boxes.dtype == np.float32
    assert labels.dtype == np.int64
    assert boxes.tolist() == [[0, 90, 45, 100], [150.5, 10, 200, 30.25]]


def test_boxes_follow_their_images_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    images = [
        {**IMAGE, "id": 2**62 + 3, "file_name": "big.jpg"},
        {**IMAGE, "id": 4, "file_name": "4.jpg"},
        {**IMAGE, "id": 1},
    ]
    ids = [1, 2**62 + 3, 1]
    boxes = [annotation([n, 0, 10, 10], n + 1, image_id=ids[n]) for n in range(3)]
    loaded = load(tmp_path, boxes, images=images)
    assert [loaded.targets(i)[0][:, 0].tolist() for i in range(3)] == [[1.0], [], [0.0, 2.0]]
    assert loaded.image_ids.tolist() == [2**62 + 3, 4, 1]


def test_crowd_regions_are_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    loaded = load(tmp_path, [annotation([0, 0, 10, 10], 1, iscrowd=1), annotation([0, 0, 20, 20], 2)])
    assert loaded.targets(0)[0].tolist() == [[0, 0, 20, 20]]
    assert loaded.ground_truth().crowd.tolist() == [True, False]
    assert loaded.problems == ()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (annotation([10, 10, 0, 5], 7), "no width or no height"),
        (annotation([10, 10, 5, -1], 7), "no width or no height"),
        (annotation([250, 10, 5, 5], 7), "outside the image (200 x 100)"),
        (annotation([1, 2, 3], 7), "not four finite numbers"),
        (annotation(["one", 2, 3, 4], 7), "not four finite numbers"),
        (annotation([1, 2, "nan", 4], 7), "not four finite numbers"),
        (annotation([1, 2, float("nan"), 4], 7), "not four finite numbers"),
        (annotation(None, 7), "not four finite numbers"),
        (annotation([1, 2, 3, 4], 7, category_id=6), "unknown category_id 6"),
        (annotation([1, 2, 3, 4], 7, image_id=9), "unknown image_id 9"),
        (annotation([1, 2, 3, 4], 7, image_id="x"), "image_id 'x' is not a whole number"),
        (annotation([1, 2, 3, 4], 7, category_id=5.5), "category_id 5.5 is not a whole number"),
        (annotation([1, 2, 3, 4], 7, iscrowd="perhaps"), "iscrowd 'perhaps' is neither 0 nor 1"),
    ],
)
def test_a_broken_box_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: dict[str, Any], reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path, [annotation([0, 0, 10, 10], 6), broken, annotation([5, 5, 10, 10], 8)])
    assert loaded.targets(0)[0].tolist() == [[0, 0, 10, 10], [5, 5, 15, 15]]
    (problem,) = loaded.problems
    assert problem.annotation_id == 7
    assert reason in problem.reason
    assert problem.file_name == ("" if broken["image_id"] in (9, "x") else "a.jpg")
    assert "1 broken boxes" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize("crowd", [1, 1.0, "1", "1.0", True, "true", " True "])
def test_a_crowd_region_is_one_however_its_flag_is_written(tmp_path: Path, crowd: Any) -> None:
    loaded = load(tmp_path, [annotation([0, 0, 10, 10], 1, iscrowd=crowd), annotation([0, 0, 20, 20], 2)])
    assert loaded.raw_crowd.tolist() == [True, False]
    assert len(loaded.boxes) == 1


@pytest.mark.parametrize("crowd", [0, 0.0, "0", "0.0", False, "false", None])
def test_an_object_is_no_crowd_region_however_its_flag_is_written(tmp_path: Path, crowd: Any) -> None:
    loaded = load(tmp_path, [annotation([0, 0, 10, 10], 1, iscrowd=crowd)])
    assert loaded.raw_crowd.tolist() == [False]
    assert len(loaded.boxes) == 1


@pytest.mark.parametrize("written", [float, str, lambda number: f"{number}.0", lambda number: f"00{number}"])
def test_numbers_may_be_floats_or_text(tmp_path: Path, written: Any) -> None:
    image = {"id": written(1), "file_name": "a.jpg", "height": written(100), "width": written(200)}
    box = annotation([written(side) for side in (10, 20, 30, 40)], written(7), area=written(600))
    loaded = load(
        tmp_path,
        [{**box, "image_id": written(1), "category_id": written(5)}, annotation([0, 0, 0, 1], written(8))],
        images=[image],
        categories=[{"id": written(5), "name": "cat"}],
    )
    assert (loaded.image_ids.tolist(), loaded.category_ids) == ([1], (5,))
    assert (loaded.heights.tolist(), loaded.widths.tolist()) == ([100], [200])
    assert loaded.targets(0)[0].tolist() == [[10, 20, 40, 60]]
    assert loaded.raw_areas.tolist() == [600, 1]
    assert [problem.annotation_id for problem in loaded.problems] == [8]


def test_ids_of_64_bits_as_text_are_exact(tmp_path: Path) -> None:
    boxes = [annotation([0, 0, 10, 10], image_id=str(2**62 + 1))]
    loaded = load(
        tmp_path, boxes, images=[{**IMAGE, "id": str(2**62 + 1)}, {**IMAGE, "id": 2**62, "file_name": "b.jpg"}]
    )
    assert loaded.image_ids.tolist() == [2**62 + 1, 2**62]
    assert len(loaded.targets(0)[0]) == 1


def test_repeated_entries_count_once_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repeated = [{**IMAGE, "license": 1}, {**IMAGE, "id": 2, "file_name": "b.jpg"}, {**IMAGE, "id": "1"}]
    categories = [CATEGORY, {**CATEGORY, "supercategory": "animal"}, CATEGORY]
    loaded = load(tmp_path, [annotation([0, 0, 10, 10])], images=repeated, categories=categories)
    assert loaded.file_names.tolist() == ["a.jpg", "b.jpg"]
    assert loaded.class_names == ("cat",)
    assert "repeats 1 of its 'images'" in caplog.text
    assert "repeats 2 of its 'categories'" in caplog.text
    with pytest.raises(UserError, match=r"image id 1 of .* stands for both"):
        load(tmp_path, [], images=[IMAGE, {**IMAGE, "file_name": "other.jpg"}])


def test_categories_without_a_box_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    categories = [{"id": 0, "name": "cells"}, CATEGORY]
    with caplog.at_level(logging.INFO):
        load(tmp_path, [annotation([0, 0, 10, 10])], categories=categories)
    assert "2 classes (1 without a box: 'cells')" in caplog.text


def test_ground_truth_keeps_the_file_as_it_is_and_fills_what_is_missing(tmp_path: Path) -> None:
    bare = {"image_id": 1, "category_id": 5, "bbox": [190, 90, 30.5, 20]}
    truth = load(tmp_path, [annotation([1.5, 2, 3, 4], 3, area=7.25), bare, annotation([1], 4)]).ground_truth()
    assert truth.boxes.tolist() == [[1.5, 2, 3, 4], [190, 90, 30.5, 20]]
    assert truth.areas.tolist() == [7.25, 610]
    assert truth.crowd.tolist() == [False, False]
    assert (truth.images.tolist(), truth.classes.tolist()) == ([0, 0], [0, 0])
    assert (truth.image_ids.tolist(), truth.category_ids, truth.class_names) == ([1], (5,), ("cat",))


def test_ground_truth_has_images_by_id_and_annotations_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [{**IMAGE, "id": number, "file_name": f"{number}.jpg"} for number in (2**62 + 1, 3, 2**62)]
    image_ids = (2**62, 2**62 + 1, 3, 9, 2**62)
    boxes = [annotation([0, 0, 10, 10 + k], k + 1, image_id=number) for k, number in enumerate(image_ids)]
    loaded = load(tmp_path, [*boxes, annotation([0, 0, 10, 20], 9, category_id=6)], images=images)
    truth = loaded.ground_truth()
    assert truth.image_ids.tolist() == [3, 2**62, 2**62 + 1]
    assert truth.images.tolist() == [1, 2, 0, 1]
    assert truth.boxes[:, 3].tolist() == [10, 11, 12, 14], "those of unknown images and categories do not count"
    assert [loaded.targets(index)[0][:, 3].tolist() for index in range(3)] == [[11], [12], [10, 14]]


@pytest.mark.parametrize("ids", [(4, 4), (0, 3), (None, "x")])
def test_annotation_ids_do_not_matter(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    loaded = load(tmp_path, [annotation([0, 0, 10, 10], number) for number in ids])
    assert len(loaded.ground_truth().boxes) == len(loaded.targets(0)[0]) == 2
    assert loaded.problems == ()


def test_missing_sizes_are_read_from_the_image(make_set: Any) -> None:
    annotation_file, folder = make_set(2, (48, 64))
    content = json.loads(annotation_file.read_text())
    for image in content["images"]:
        del image["height"], image["width"]
    annotation_file.write_text(json.dumps(content))
    loaded = load_annotations(annotation_file, folder)
    assert loaded.heights.tolist() == [48, 48]
    assert loaded.widths.tolist() == [64, 64]
    (folder / "1.png").unlink()
    annotation_file.write_text(json.dumps(content) + " ")
    with pytest.raises(UserError, match=r"gives no height and width for '.*1\.png'"):
        load_annotations(annotation_file, folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation/>", "is not JSON"),
        ([1, 2], "holds a list"),
        ({"images": [IMAGE], "categories": [CATEGORY]}, "has no 'annotations'"),
        ({"images": {}, "annotations": [], "categories": [CATEGORY]}, "'images' of .* is a dict, not a list"),
        ({"images": [], "annotations": [], "categories": [CATEGORY]}, "'images' of .* is empty"),
        ({"images": [IMAGE], "annotations": [], "categories": []}, "'categories' of .* is empty"),
        (
            {"images": [{"id": "a_1", "file_name": "a"}], "annotations": [], "categories": [CATEGORY]},
            "entry 0 of 'images'",
        ),
        (
            {"images": [{"id": "1_2", "file_name": "a"}], "annotations": [], "categories": [CATEGORY]},
            "entry 0 of 'images' .* needs a whole number as 'id'",
        ),
        ({"images": [IMAGE], "annotations": [], "categories": [{"id": 1}]}, "entry 0 of 'categories'"),
        ({"images": [IMAGE], "annotations": ["x"], "categories": [CATEGORY]}, "entry of 'annotations' is 'x'"),
        (
            {"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}], "annotations": [], "categories": [CATEGORY]},
            r"image id 1 of .* stands for both 'a\.jpg' and 'b\.jpg'",
        ),
        (
            {"images": [IMAGE], "annotations": [], "categories": [CATEGORY, {"id": 5, "name": "dog"}]},
            "category id 5 of .* stands for both 'cat' and 'dog'",
        ),
    ],
)
def test_a_file_that_is_not_coco_is_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as raised:
        load_annotations(path, tmp_path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'.*nowhere\.json' cannot be read"):
        load_annotations(tmp_path / "nowhere.json", tmp_path)


def test_validation_takes_over_the_labels_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cat, dog, bird = ({"id": id_, "name": name} for id_, name in ((5, "cat"), (8, "dog"), (9, "bird")))
    train = load(tmp_path, [], categories=[cat, dog])
    boxes = [annotation([0, 0, 10, 10 * number], number, category_id=id_) for number, id_ in enumerate((9, 8, 9, 8), 1)]
    with caplog.at_level(logging.WARNING):
        val = load(tmp_path, boxes, categories=[dog, bird]).relabelled(train.classes)
    assert val.class_names == ("cat", "dog")
    assert val.targets(0)[1].tolist() == [1, 1]
    assert val.ground_truth().classes.tolist() == [1, 1]
    assert val.ground_truth().boxes[:, 3].tolist() == [20, 40]
    assert "'bird' (id 9)" in caplog.text
    renamed = load(tmp_path, [], categories=[{"id": 5, "name": "horse"}])
    with pytest.raises(UserError, match=r"have no class in common: 'horse' \(id 5\) here, 'cat' \(id 5\)"):
        renamed.relabelled(train.classes)


def test_validation_and_training_may_number_the_same_classes_differently(tmp_path: Path) -> None:
    train = load(tmp_path, [], categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}])
    boxes = [annotation([0, 0, 10, 10 * id_], id_, category_id=id_) for id_ in (1, 2)]
    val = load(tmp_path, boxes, categories=[{"id": 1, "name": "Dog"}, {"id": 2, "name": "cat"}])
    val = val.relabelled(train.classes)
    assert val.classes == replace(train.classes, source=val.classes.source)
    assert val.targets(0)[1].tolist() == val.ground_truth().classes.tolist() == [1, 0]


def test_tiny_coco_evaluates_as_the_file_itself(shared_data: Path) -> None:
    annotation_file = shared_data / "tiny_coco/annotations/instances_val2017.json"
    loaded = load_annotations(annotation_file, shared_data / "tiny_coco/val2017")
    assert len(loaded) == 50
    assert loaded.num_classes == 80
    assert loaded.problems == ()
    assert loaded.raw_crowd.sum() > 0
    assert len(loaded.boxes) == (~loaded.raw_crowd).sum()
    theirs = COCO(str(annotation_file))
    generator = np.random.default_rng(0)
    detections = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": (np.array(entry["bbox"]) * generator.uniform(0.9, 1.1, 4)).tolist(),
            "score": float(generator.random()),
        }
        for entry in theirs.dataset["annotations"]
    ]
    evaluation = COCOeval(theirs, theirs.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.1 < evaluation.stats[0] < 1
    truth = loaded.ground_truth()
    images = np.searchsorted(truth.image_ids, [found["image_id"] for found in detections]) + 1
    classes = [truth.category_ids.index(found["category_id"]) + 1 for found in detections]
    boxes, scores = [found["bbox"] for found in detections], [found["score"] for found in detections]
    for _, count in BACKENDS.values():
        assert count(truth, np.column_stack([images, boxes, scores, classes])).summary == evaluation.stats.tolist()


def test_broken_boxes_of_blood_cells_are_named(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    loaded = load_annotations(folder / "annotations/instances_train.json", folder / "JPEGImages")
    raw = json.loads((folder / "annotations/instances_train.json").read_text())
    assert len(loaded) == 205
    assert loaded.class_names == ("RBC", "WBC", "Platelets")
    broken = {entry["id"] for entry in raw["annotations"] if min(entry["bbox"][2:]) <= 0}
    assert broken
    assert broken <= {problem.annotation_id for problem in loaded.problems}
    assert all(problem.file_name.startswith("BloodImage_") for problem in loaded.problems)
    assert len(loaded.boxes) == len(raw["annotations"]) - len(loaded.problems)
    sides = loaded.boxes[:, 2:] - loaded.boxes[:, :2]
    assert (sides > 0).all()


def test_an_image_that_is_listed_for_each_annotator_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Label Studio's export."""
    images = [
        {"id": number, "file_name": name, "height": 100, "width": 200}
        for number, name in ((1, "a"), (2, "b"), (7, "a"))
    ]
    boxes = [annotation([10, 20, 30, 40], 1), annotation([10, 20, 30, 40], 2), annotation([100, 20, 30, 40], 3)]
    of_another = [
        {**annotation([10.5, 20, 30, 41], 4), "image_id": 7},
        {**annotation([60, 60, 9, 9], 5), "image_id": 7},
    ]
    loaded = load(tmp_path, [*boxes, *of_another], images=images)
    assert loaded.image_ids.tolist() == [1, 2]
    assert loaded.file_names.tolist() == ["a", "b"]
    expected = [[10, 20, 40, 60], [10, 20, 40, 60], [100, 20, 130, 60], [60, 60, 69, 69]]
    assert loaded.targets(0)[0].tolist() == expected, "boxes that one annotator doubles are no matter of reading"
    assert "lists 1 images again under another id" in caplog.text
    assert "all but 1 that are of the same object" in caplog.text


def test_classes_that_are_not_annotated_exhaustively_cost_no_false_positive(tmp_path: Path) -> None:
    """LVIS: a crowd region over the whole image has detections of the class ignored there."""
    categories = [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}]
    image = {"id": 1, "coco_url": "http://x/val2017/a.jpg", "height": 100, "width": 200}
    image["not_exhaustive_category_ids"] = [9]
    loaded = load(tmp_path, [annotation([0, 0, 10, 10], 1)], images=[image], categories=categories)
    assert loaded.targets(0)[1].tolist() == [0]
    truth = loaded.ground_truth()
    assert truth.boxes[truth.crowd].tolist() == [[0, 0, 200, 100]]
    assert truth.classes[truth.crowd].tolist() == [1]
    evaluator = CocoEvaluator(truth, loaded.category_ids)
    boxes = torch.tensor([[[50.0, 50, 60, 60], [0, 0, 10, 10]]])
    evaluator.update(Detections(torch.tensor([[1, 0]]), boxes, torch.tensor([[0.9, 0.8]])), torch.tensor([1]))
    metrics = evaluator.compute()
    assert metrics.AP == pytest.approx(1)


def test_annotations_without_classes_and_boxes_take_those_of_others(tmp_path: Path) -> None:
    table = load(tmp_path, [])
    without = replace(table, category_ids=(), class_names=())
    assert without.relabelled(table.classes).class_names == ("cat",)


def test_a_category_may_be_named_by_a_number(tmp_path: Path) -> None:
    assert load(tmp_path, [], categories=[{"id": 5, "name": 7}]).class_names == ("7",)
