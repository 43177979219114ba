from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation import backends
from rtdetrv2_train.evaluation.analysis.analysis import analyse
from rtdetrv2_train.evaluation.backends import BACKENDS, backend_named
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.tables import notes
from rtdetrv2_train.ground_truth import GroundTruth
from rtdetrv2_train.types import Detections
from tests.evaluation.coco_objects import as_ground_truth

NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
NAMES += ["AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"]


def annotation(number: int, image: int, category: int, box: list[float], crowd: int = 0) -> dict[str, Any]:
    area = box[2] * box[3]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}


def ground_truth(images: list[int], categories: list[int], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": i} for i in images],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": annotations,
    }


def detections(labels: Any, boxes: Any, scores: Any) -> Detections:
    labels = torch.as_tensor(labels, dtype=torch.int64)
    return Detections(
        labels,
        torch.as_tensor(boxes, dtype=torch.float32).reshape(*labels.shape, 4),
        torch.as_tensor(scores, dtype=torch.float32).reshape(labels.shape),
    )


def plain(truth: dict[str, Any], categories: list[int], found: Detections, image_ids: list[int]) -> list[float]:
    """The twelve numbers of pycocotools from a list of results, as a JSON file of results would hold them."""
    results = []
    for row, image_id in enumerate(image_ids):
        boxes = found.boxes[row].double().numpy()
        for label, (left, top, right, bottom), score in zip(found.labels[row], boxes, found.scores[row], strict=True):
            box = [left, top, right - left, bottom - top]
            category = categories[int(label)]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]


def twelve(evaluator: CocoEvaluator) -> list[float]:
    metrics = evaluator.compute()
    return [getattr(metrics, name) for name in NAMES]


def random_case(seed: int) -> tuple[dict[str, Any], list[int], Detections, list[int]]:
    """A case with crowds, tied scores, images and classes without boxes, and mostly huge ids."""
    rng = np.random.default_rng(seed)
    offset = (0, 2**41, 2**60)[seed % 3]
    images = (offset + rng.choice(1000, size=rng.integers(1, 7), replace=False)).tolist()
    categories = (1 + rng.choice(90, size=rng.integers(1, 6), replace=False)).tolist()
    most = 130 if seed % 10 == 0 else 25
    annotations = []
    for image in images:
        for _ in range(rng.integers(0, 9)):
            side = rng.choice([0, 12, 50, 150], size=2, p=[0.05, 0.3, 0.35, 0.3]) * rng.uniform(0.5, 1.5, 2)
            box = [*rng.uniform(0, 400, 2).tolist(), *side.tolist()]
            # All categories but the first, so that some class has no box.
            category = int(rng.choice(categories[1:] or categories))
            annotations.append(annotation(offset + 1 + len(annotations), image, category, box, int(rng.random() < 0.1)))
    count = int(rng.integers(1, most))
    boxes = np.zeros((len(images), count, 4))
    labels = rng.integers(0, len(categories), (len(images), count))
    for row, image in enumerate(images):
        own = [a for a in annotations if a["image_id"] == image]
        for k in range(count):
            if own and rng.random() < 0.6:
                chosen = own[rng.integers(len(own))]
                left, top, width, height = chosen["bbox"]
                shift = rng.normal(0, 0.08, 4) * max(width, height)
                boxes[row, k] = np.array([left, top, left + width, top + height]) + shift
                if rng.random() < 0.8:
                    labels[row, k] = categories.index(chosen["category_id"])
            else:
                corner = rng.uniform(0, 400, 2)
                boxes[row, k] = [*corner, *(corner + rng.uniform(0, 200, 2))]
    scores = rng.random((len(images), count))
    if seed % 2:
        scores = np.round(scores, 1)
    return ground_truth(images, categories, annotations), categories, detections(labels, boxes, scores), images


@pytest.mark.parametrize("seed", range(200))
def test_random_cases_equal_plain_pycocotools_bit_for_bit(seed: int) -> None:
    truth, categories, found, images = random_case(seed)
    expected = plain(truth, categories, found, images)
    per_class = []
    for backend in BACKENDS:
        evaluator = CocoEvaluator(as_ground_truth(truth), categories, backend)
        for row, image in enumerate(images):
            one = slice(row, row + 1)
            evaluator.update(Detections(found.labels[one], found.boxes[one], found.scores[one]), torch.tensor([image]))
        assert twelve(evaluator) == expected, backend
        per_class.append(evaluator.compute().per_class)
    assert all(of_backend == per_class[0] for of_backend in per_class)


def test_the_cases_that_trip_evaluators_give_the_same_with_every_backend() -> None:
    """A crowd, ties, an empty class, empty images, over 100 detections, boxes without area, huge ids; all at once."""
    images = [2**62, 2**62 + 1, 2**62 + 2, 0]
    annotations = [
        annotation(0, images[0], 5, [10.0, 10.0, 30.0, 30.0]),
        annotation(2**61, images[0], 5, [10.0, 10.0, 300.0, 300.0], crowd=1),
        annotation(2**61 + 1, images[1], 9, [50.0, 50.0, 0.0, 20.0]),
        annotation(2**61 + 2, images[1], 9, [100.0, 100.0, 96.0, 96.0]),
        annotation(2**61 + 3, images[1], 5, [0.0, 0.0, 32.0, 32.0]),
    ]
    truth = ground_truth(images, [5, 7, 9], annotations)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (4, 150, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 60, (4, 150, 2))], -1)
    boxes[0, ::3] = [10, 10, 41, 40]
    boxes[1, ::2] = [100, 100, 190, 196]
    boxes[1, 1::10] = [50, 50, 50, 70]
    found = detections(rng.integers(0, 3, (4, 150)), boxes, np.round(rng.random((4, 150)), 1))
    numbers = {}
    for backend in BACKENDS:
        evaluator = CocoEvaluator(as_ground_truth(truth), [5, 7, 9], backend)
        evaluator.update(found, torch.tensor(images))
        numbers[backend] = evaluator.compute()
    assert numbers["ultrafast"] == numbers["pycocotools"]
    assert 0.01 < numbers["pycocotools"].AP < 0.99
    assert numbers["pycocotools"].per_class[1].AP == -1


def test_the_fastest_backend_is_the_default_and_pycocotools_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend_named("auto") is backends.ultrafast
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ultrafast_pycocotools" else find_spec(name)
    )
    assert backend_named("auto") is backends.pycocotools
    with pytest.raises(UserError, match="is not installed: pip install ultrafast-pycocotools"):
        backend_named("ultrafast")
    with pytest.raises(UserError, match=r"no evaluation\.backend=pycoco: did you mean 'pycocotools'"):
        backend_named("pycoco")


def test_random_cases_measure_something() -> None:
    """Guards the test above against comparing nothing but -1 with -1."""
    ap = []
    for seed in range(20):
        truth, categories, found, images = random_case(seed)
        ap.append(plain(truth, categories, found, images)[0])
    assert sum(0.02 < number < 0.98 for number in ap) > 12


def test_all_of_more_than_a_hundred_detections_compete_and_the_best_hundred_of_a_class_count() -> None:
    truth = ground_truth([1], [1], [annotation(1, 1, 1, [0.0, 0.0, 50.0, 50.0])])
    wrong, right = [[300.0, 300.0, 340.0, 340.0]], [[0.0, 0.0, 50.0, 50.0]]
    scores = np.linspace(0.99, 0.1, 120)
    for position, recall in ((99, 1.0), (100, 0.0)):
        boxes = wrong * position + right + wrong * (119 - position)
        found = detections(np.zeros((1, 120)), [boxes], scores[None])
        evaluator = CocoEvaluator(as_ground_truth(truth), [1])
        evaluator.update(found, torch.tensor([1]))
        assert evaluator.compute().AR100 == recall
        assert twelve(evaluator) == plain(truth, [1], found, [1])


def test_perfect_detections_score_one_and_absent_sizes_minus_one() -> None:
    truth = ground_truth([5], [3], [annotation(9, 5, 3, [10.0, 10.0, 200.0, 200.0])])
    evaluator = CocoEvaluator(as_ground_truth(truth), [3])
    evaluator.update(detections([[0]], [[[10, 10, 210, 210]]], [[0.9]]), torch.tensor([5]))
    metrics = evaluator.compute()
    assert metrics.AP == pytest.approx(1, abs=1e-12)
    assert metrics.AR1 == 1
    assert metrics.AP_small == metrics.AP_medium == metrics.AR_small == -1


def test_labels_are_class_indices_in_the_order_of_category_ids() -> None:
    truth = ground_truth([1], [7, 90], [annotation(1, 1, 90, [0.0, 0.0, 40.0, 40.0])])
    found = detections([[0]], [[[0, 0, 40, 40]]], [[0.5]])
    for category_ids, expected in (([90, 7], 1.0), ([7, 90], 0.0)):
        evaluator = CocoEvaluator(as_ground_truth(truth), category_ids)
        evaluator.update(found, torch.tensor([1]))
        assert evaluator.compute().AP50 == pytest.approx(expected)


def test_an_annotation_with_id_zero_can_be_matched() -> None:
    box = [10.0, 10.0, 50.0, 50.0]
    found = detections([[0]], [[[10, 10, 60, 60]]], [[0.9]])
    evaluator = CocoEvaluator(as_ground_truth(ground_truth([0], [0], [annotation(0, 0, 0, box)])), [0])
    evaluator.update(found, torch.tensor([0]))
    from_one = ground_truth([0], [0], [annotation(1, 0, 0, box)])
    assert twelve(evaluator) == plain(from_one, [0], found, [0])
    assert evaluator.compute().AP > 0.99


def test_neighbouring_ids_beyond_2_to_53_stay_apart() -> None:
    images = [2**60, 2**60 + 1]
    boxes = [[0.0, 0.0, 40.0, 40.0], [200.0, 200.0, 40.0, 40.0]]
    truth = ground_truth(images, [1], [annotation(2**60 + k, images[k], 1, boxes[k]) for k in range(2)])
    evaluator = CocoEvaluator(as_ground_truth(truth), [1])
    evaluator.update(
        detections([[0], [0]], [[[0, 0, 40, 40]], [[200, 200, 240, 240]]], [[0.9], [0.8]]), torch.tensor(images)
    )
    assert evaluator.compute().AP > 0.99


@pytest.mark.parametrize("shape", [None, (1, 0)], ids=["no update", "an update with no box"])
def test_no_detections_at_all_score_zero(shape: tuple[int, int] | None) -> None:
    truth = ground_truth([1], [1, 2], [annotation(1, 1, 1, [0.0, 0.0, 20.0, 20.0])])
    evaluator = CocoEvaluator(as_ground_truth(truth), [1, 2])
    if shape:
        evaluator.update(detections(np.zeros(shape), np.zeros((*shape, 4)), np.zeros(shape)), torch.tensor([1]))
    metrics = evaluator.compute()
    assert (metrics.AP, metrics.AP_small, metrics.AR100) == (0, 0, 0)
    assert metrics.AP_large == -1
    assert [of_class.AP for of_class in metrics.per_class] == [0, -1]


@pytest.mark.parametrize("images", [[1, 2], []], ids=["images without boxes", "no images"])
def test_a_ground_truth_without_boxes_scores_minus_one_throughout(images: list[int]) -> None:
    evaluator = CocoEvaluator(as_ground_truth(ground_truth(images, [1], [])), [1])
    if images:
        evaluator.update(detections([[0]], [[[0, 0, 9, 9]]], [[0.9]]), torch.tensor([1]))
    assert twelve(evaluator) == [-1.0] * 12
    assert evaluator.compute().per_class[0].num_boxes == 0


def test_images_without_detections_lower_the_recall() -> None:
    boxes = [annotation(k, k, 1, [0.0, 0.0, 40.0, 40.0]) for k in (1, 2)]
    evaluator = CocoEvaluator(as_ground_truth(ground_truth([1, 2], [1], boxes)), [1])
    evaluator.update(detections([[0]], [[[0, 0, 40, 40]]], [[0.9]]), torch.tensor([1]))
    assert evaluator.compute().AR100 == 0.5


def test_an_image_that_comes_twice_counts_once_as_it_came_first() -> None:
    truth = ground_truth([1], [1], [annotation(1, 1, 1, [0.0, 0.0, 40.0, 40.0])])
    evaluator = CocoEvaluator(as_ground_truth(truth), [1])
    evaluator.update(detections([[0]], [[[0, 0, 40, 40]]], [[0.3]]), torch.tensor([1]))
    once = twelve(evaluator)
    evaluator.update(detections([[0]], [[[200, 200, 240, 240]]], [[0.9]]), torch.tensor([1]))
    assert twelve(evaluator) == once
    assert once[0] > 0.99


def test_detections_that_are_not_finite_are_left_out() -> None:
    truth = ground_truth([1], [1], [annotation(1, 1, 1, [0.0, 0.0, 40.0, 40.0])])
    nan, inf, box = float("nan"), float("inf"), [0.0, 0.0, 40.0, 40.0]
    boxes = [[nan] * 4, [0, 0, inf, inf], [0, 0, nan, 40], box]
    for score_of_the_good_box, expected in ((0.5, 1.0), (nan, 0.0)):
        evaluator = CocoEvaluator(as_ground_truth(truth), [1])
        found = detections([[0] * 4], [boxes], [[0.9, 0.9, 0.9, score_of_the_good_box]])
        evaluator.update(found, torch.tensor([1]))
        assert evaluator.compute().AP == pytest.approx(expected)


def test_a_detection_between_two_boxes_takes_the_one_that_pycocotools_takes() -> None:
    # The first detection overlaps both boxes equally; the second fits only one of them well.
    boxes = [[0.0, 0.0, 40.0, 40.0], [8.0, 0.0, 40.0, 40.0]]
    truth = ground_truth([1], [1], [annotation(k + 1, 1, 1, boxes[k]) for k in range(2)])
    precision = []
    for second in ([0, 0, 40, 40], [8, 0, 48, 40]):
        found = detections([[0, 0]], [[[4, 0, 44, 40], second]], [[0.9, 0.8]])
        evaluator = CocoEvaluator(as_ground_truth(truth), [1])
        evaluator.update(found, torch.tensor([1]))
        assert twelve(evaluator) == plain(truth, [1], found, [1])
        precision.append(evaluator.compute().AP)
    assert precision[0] > precision[1]


def test_per_class_numbers_are_those_of_an_evaluation_of_that_class_alone() -> None:
    truth, categories, found, images = random_case(4)
    evaluator = CocoEvaluator(as_ground_truth(truth), categories)
    evaluator.update(found, torch.tensor(images))
    per_class = evaluator.compute().per_class
    assert [of_class.name for of_class in per_class] == [f"class {i}" for i in sorted(categories)]
    for category, of_class in zip(sorted(categories), per_class, strict=True):
        own = [a for a in truth["annotations"] if a["category_id"] == category]
        alone = {**truth, "annotations": own, "categories": [{"id": category}]}
        stats = plain(alone, categories, found, images)
        assert (of_class.AP, of_class.AP50, of_class.AR100) == pytest.approx((stats[0], stats[1], stats[8]), abs=1e-12)
        assert of_class.num_boxes == sum(not a["iscrowd"] for a in own)


def test_half_precision_detections_and_missing_area_and_crowd_are_taken() -> None:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40]}
    evaluator = CocoEvaluator(as_ground_truth(ground_truth([1], [1], [box])), [1])
    found = detections([[0]], [[[0, 0, 40, 40]]], [[0.5]])
    evaluator.update(Detections(found.labels, found.boxes.bfloat16(), found.scores.half()), torch.tensor([1]))
    assert evaluator.compute().AP_medium > 0.99


def test_reset_forgets_and_the_ground_truth_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    truth, categories, found, images = random_case(7)
    given, before = as_ground_truth(truth), as_ground_truth(truth)
    evaluator = CocoEvaluator(given, categories)
    evaluator.update(found, torch.tensor(images))
    first = twelve(evaluator)
    assert twelve(evaluator) == first
    evaluator.reset()
    assert twelve(evaluator)[0] == 0
    evaluator.update(found, torch.tensor(images))
    assert twelve(evaluator) == first
    for field in fields(GroundTruth):
        np.testing.assert_array_equal(getattr(given, field.name), getattr(before, field.name))
    assert capsys.readouterr().out == ""


def test_saved_metrics_are_the_metrics_and_leave_no_other_file(tmp_path: Any) -> None:
    truth, categories, found, images = random_case(4)
    evaluator = CocoEvaluator(as_ground_truth(truth), categories)
    evaluator.update(found, torch.tensor(images))
    metrics = evaluator.compute()
    (tmp_path / "metrics.json").write_text("old")
    metrics.save(tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics.as_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_more_detections_than_a_hundred_can_be_counted_beside_the_benchmarks_numbers() -> None:
    """An image with 150 objects of a class, all found, the last ones with the lowest scores."""
    corners = [[float(10 * (k % 20)), float(10 * (k // 20))] for k in range(150)]
    truth = ground_truth(
        [1], [1, 2], [annotation(k + 1, 1, 1, [*corner, 8.0, 8.0]) for k, corner in enumerate(corners)]
    )
    boxes = [[left, top, left + 8, top + 8] for left, top in corners]
    found = detections(np.zeros((1, 150)), [boxes], np.linspace(0.9, 0.1, 150)[None])
    numbers = []
    for backend in BACKENDS:
        evaluator = CocoEvaluator(as_ground_truth(truth), [1, 2], backend, max_detections=150)
        evaluator.update(found, torch.tensor([1]))
        assert twelve(evaluator) == plain(truth, [1, 2], found, [1])
        metrics = evaluator.compute()
        assert metrics.AP == pytest.approx(0.67, abs=0.01)
        assert (metrics.AP_max_detections, metrics.AR_max_detections) == (pytest.approx(1), 1)
        assert (metrics.most_boxes, metrics.max_detections) == (150, 150)
        assert analyse(evaluator).metrics == metrics
        numbers.append(metrics)
    assert numbers[0] == numbers[1]
    assert "an image has 150 boxes of one class" not in "".join(notes(numbers[0]))
    assert "evaluation.max_detections=150 gives it" in "".join(notes(replace(numbers[0], max_detections=None)))
    with pytest.raises(UserError, match=r"evaluation\.max_detections=50: give a whole number above .* 100, or null"):
        CocoEvaluator(as_ground_truth(truth), [1, 2], max_detections=50)


@pytest.mark.parametrize("seed", range(12))
def test_a_further_limit_leaves_the_benchmarks_numbers_as_they_are(seed: int) -> None:
    truth, categories, found, images = random_case(10 * seed)  # with up to 130 detections
    for backend in BACKENDS:
        with_limit, without = (CocoEvaluator(as_ground_truth(truth), categories, backend, m) for m in (120, None))
        for evaluator in (with_limit, without):
            evaluator.update(found, torch.tensor(images))
        assert twelve(with_limit) == twelve(without)
        assert with_limit.compute().per_class == without.compute().per_class


def test_only_the_images_looked_at_can_be_measured_on() -> None:
    truth, categories, found, images = random_case(4)
    seen, some = images[::2], slice(None, None, 2)
    part = Detections(found.labels[some], found.boxes[some], found.scores[some])
    own = {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in seen],
        "annotations": [entry for entry in truth["annotations"] if entry["image_id"] in seen],
    }
    evaluator = CocoEvaluator(as_ground_truth(truth), categories)
    evaluator.update(part, torch.tensor(seen))
    whole = twelve(evaluator)
    evaluator.leave_out_unseen()
    assert twelve(evaluator) == plain(own, categories, part, seen) != whole
    metrics = evaluator.compute()
    assert (metrics.images, metrics.all_images, metrics.is_partial) == (len(seen), len(images), True)
    assert analyse(evaluator).boxes.image_ids.tolist() == sorted(seen)
    evaluator.reset()
    evaluator.update(part, torch.tensor(seen))
    assert twelve(evaluator) == whole


def test_a_ground_truth_that_does_not_fit_together_is_refused() -> None:
    truth = as_ground_truth(ground_truth([1, 2], [1, 2], [annotation(1, 1, 1, [0.0, 0.0, 9.0, 9.0])]))
    with pytest.raises(ValueError, match="must be ascending"):
        replace(truth, image_ids=truth.image_ids[::-1])
    with pytest.raises(ValueError, match="must be ascending"):
        replace(truth, category_ids=(1, 1))
    with pytest.raises(ValueError, match="does not fit together"):
        replace(truth, areas=truth.areas[:0])
    with pytest.raises(ValueError, match="does not fit together"):
        replace(truth, class_names=("a",))


def test_bad_input_says_what_to_correct() -> None:
    truth = ground_truth([1], [1], [])
    with pytest.raises(UserError, match="category id 5"):
        CocoEvaluator(as_ground_truth(truth), [1, 5])
    evaluator = CocoEvaluator(as_ground_truth(truth), [1])
    one = detections([[0]], [[[0, 0, 9, 9]]], [[0.9]])
    with pytest.raises(UserError, match="image id 77"):
        evaluator.update(one, torch.tensor([77]))
    with pytest.raises(ValueError, match="1 images but 2 image ids"):
        evaluator.update(one, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="labels from 3 to 3"):
        evaluator.update(detections([[3]], [[[0, 0, 9, 9]]], [[0.9]]), torch.tensor([1]))
