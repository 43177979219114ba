"""What every training says of its annotations: a line for each fault, and none of a clean set."""

from __future__ import annotations

import time

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.inspection.essential import essential_lines
from tests.data.inspection.small_sets import CLEAN, table

VAL = [[("cat", (15, 10, 40, 30)), ("dog", (70, 29, 50, 60))], [("dog", (0, 0, 200, 140))]]


def lines(train: AnnotationTable, val: AnnotationTable) -> list[str]:
    return essential_lines(train, val)


def test_nothing_is_said_of_a_clean_set() -> None:
    assert lines(table(CLEAN), table(VAL, folder="val")) == []
    clean = table(CLEAN)
    assert lines(clean, clean) == []


def test_each_fault_is_a_line_and_the_last_one_says_how_to_see_them() -> None:
    twice = [("cat", (10, 10, 40, 40)), ("cat", (10, 10, 40, 40)), ("dog", (10, 10, 40, 40))]
    train = table([*CLEAN, twice, CLEAN[0]], ["cat", "dog", "Dog"])
    said = lines(train, table([*VAL, CLEAN[0]], ["cat", "dog", "Dog"], folder="val"))
    assert len(said) == 6
    assert said[0] == (
        "error in the data, val: 1 image of 3 with the very boxes of one that is trained on, such as '2.jpg'"
    )
    for part in ("place of another one", "two classes", "spelling of their names"):
        assert any(part in line for line in said), part
    assert said[-1].startswith("rtdetrv2 inspect ")


def test_what_reading_has_said_is_not_said_again() -> None:
    broken = [("cat", (10, 10, 0, 20)), ("dog", (500, 10, 20, 20)), ("bird", (1, 2, 30, 40))]
    assert lines(table([*CLEAN, broken]), table(VAL, folder="val")) == []
    corners = [[("cat", (90, 60, 150, 120)), ("dog", (100, 10, 160, 70)), ("cat", (20, 90, 60, 140))]] * 3
    assert not any("corners" in line for line in lines(table(corners), table(VAL, folder="val")))


def test_coco_takes_well_under_two_seconds_of_the_processor() -> None:
    count, images = 860_001, 118_287
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.normal(4, 1, (count, 2))).clip(2, 400)
    raw = np.concatenate([generator.random((count, 2)) * ([640, 480] - sizes), sizes], axis=1)
    of_image, labels = generator.integers(0, images, count), generator.integers(0, 80, count)
    order = np.argsort(of_image, kind="stable")
    made = AnnotationTable(
        **vars(table(CLEAN))
        | {
            "category_ids": tuple(range(1, 81)),
            "class_names": tuple(f"class {number:02d}x" for number in range(80)),
            "image_ids": np.arange(images),
            "file_names": np.char.add(np.arange(images).astype(np.str_), ".jpg"),
            "heights": np.full(images, 480),
            "widths": np.full(images, 640),
            "offsets": np.concatenate([[0], np.cumsum(np.bincount(of_image, minlength=images))]),
            "boxes": np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1).astype(np.float32)[order],
            "labels": labels[order],
            "raw_images": of_image,
            "raw_labels": labels,
            "raw_boxes": raw,
            "raw_areas": raw[:, 2:].prod(axis=1),
            "raw_crowd": np.zeros(count, dtype=bool),
        }
    )
    began = time.process_time()
    assert lines(made, made.subset(np.arange(0, images, 24))) == []  # but that the files are shared, which is said
    assert time.process_time() - began < 4  # 1.4 on an idle core; a busy machine counts more
