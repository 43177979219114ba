from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdetrv2_train.viz.boxes import Marks, draw_detections, prediction_grid
from rtdetrv2_train.viz.colours import class_colour

NAMES = ["cat", "dog", "bird"]
GREY = 127


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def touched(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(-1)


def test_a_box_is_outlined_and_its_inside_left_as_it_is() -> None:
    picture = np.asarray(draw_detections(grey(200, 300), [[50, 80, 150, 180]], [1], [0.9], NAMES))
    for y, x in ((80, 100), (180, 100), (130, 50), (130, 150)):
        assert tuple(picture[y, x]) == class_colour(1)
    assert not touched(picture[90:175, 60:145]).any()
    assert not touched(picture[:, 200:]).any()


def test_the_label_stands_above_the_box_and_holds_text() -> None:
    picture = np.asarray(draw_detections(grey(200, 300), [[50, 80, 250, 180]], [1], [0.9], NAMES))
    above = picture[60:80, 50:250]
    assert touched(above).sum() > 300
    assert len(np.unique(above[touched(above)].reshape(-1, 3), axis=0)) > 2


def test_at_the_top_edge_the_label_is_inside() -> None:
    picture = np.asarray(draw_detections(grey(200, 300), [[50, 0, 250, 180]], [1], None, NAMES))
    assert touched(picture[6:10, 55:70]).all()
    assert not touched(picture[182:]).any()


def test_labels_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    box = [60, 80, 200, 180]
    one = np.asarray(draw_detections(grey(240, 300), [box], [1], None, NAMES))
    two = np.asarray(draw_detections(grey(240, 300), [box, box], [1, 2], None, NAMES))
    cover = (two == class_colour(2)).all(-1).sum()
    assert cover > 200
    assert (two[60:80] == one[60:80]).all(-1)[:, 60:90].all()


def test_classes_keep_their_colours_and_differ() -> None:
    assert class_colour(5) == class_colour(5)
    assert len({class_colour(label) for label in range(91)}) == 91


def test_scores_below_the_minimum_are_not_drawn() -> None:
    boxes = [[10, 40, 60, 90], [150, 40, 200, 90]]
    picture = np.asarray(draw_detections(grey(120, 220), boxes, [0, 0], [0.9, 0.2], NAMES, minimum_score=0.5))
    assert touched(picture[:, :100]).any()
    assert not touched(picture[:, 130:]).any()


def test_tensors_and_boxes_outside_the_image_or_without_extent_are_drawn() -> None:
    image = grey(100, 100)
    boxes = torch.tensor([[-50.0, -20.0, 500.0, 400.0], [30.0, 30.0, 30.0, 30.0], [float("nan")] * 4])
    picture = draw_detections(image, boxes, torch.tensor([0, 1, 2]), torch.tensor([0.9, 0.8, 0.7]), NAMES)
    assert picture.size == (100, 100)
    assert tuple(np.asarray(picture)[50, 0]) == class_colour(0)
    assert (image == GREY).all()


def test_a_picture_without_boxes_is_the_image() -> None:
    assert not touched(np.asarray(draw_detections(grey(20, 30), np.zeros((0, 4)), [], [], NAMES))).any()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(np.zeros((10, 10, 3)), [], [], None, NAMES)
    with pytest.raises(ValueError, match="1 boxes, 2 labels"):
        draw_detections(grey(10, 10), [[0, 0, 5, 5]], [0, 1], None, NAMES)
    with pytest.raises(ValueError, match="grid"):
        prediction_grid([], [], [], NAMES)


def test_the_grid_shows_ground_truth_left_and_prediction_right_of_enlarged_images() -> None:
    truth, prediction = Marks([[8, 16, 24, 28]], [0]), Marks([[8, 16, 24, 28]], [1], [0.8])
    grid = np.asarray(prediction_grid([grey(32, 32)], [truth], [prediction], NAMES, cell=320))
    assert grid.shape[1] >= 2 * 320
    middle = grid.shape[1] // 2
    for side, shown, other in ((grid[:, :middle], 0, 1), (grid[:, middle:], 1, 0)):
        assert (side == class_colour(shown)).all(-1).sum() > 400
        assert not (side == class_colour(other)).all(-1).any()
    assert touched(grid[:24]).any()
    # Ten times as large, the box is 160 pixels wide.
    columns = np.flatnonzero((grid[:, :middle] == class_colour(0)).all(-1).sum(0) > 60)
    assert columns[-1] - columns[0] == pytest.approx(160, abs=3)


def test_the_grid_wraps_after_its_columns() -> None:
    images = [grey(32, 32)] * 3
    marks = [Marks([[4, 4, 20, 20]], [0], [0.5])] * 3
    narrow = prediction_grid(images, marks, marks, NAMES, columns=1, cell=256)
    wide = prediction_grid(images, marks, marks, NAMES, columns=3, cell=256)
    assert narrow.height > 2.8 * wide.height
    assert wide.width > 2.9 * narrow.width


def test_lines_and_labels_leave_small_objects_in_a_large_image_to_be_seen() -> None:
    boxes = [[400 * k + 100, 900, 400 * k + 140, 940] for k in range(4)]
    picture = np.asarray(draw_detections(grey(2000, 2000), boxes, [0] * 4, [0.9] * 4, NAMES))
    changed = (picture != GREY).any(-1)
    assert not changed[905:935, 105:135].any()
    assert changed[900, 100:140].all()
    assert changed.sum() < 4 * 40 * 80
