from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdetrv2_train.data.formats.box_forms import BoxForm, form_of
from rtdetrv2_train.errors import UserError

FILE = Path("set.parquet")
SIZES = np.tile(np.array([[80, 100]]), (4, 1))
XYWH = np.array([[2.0, 3, 60, 20], [50, 40, 49, 39], [90, 70, 8, 9], [1, 1, 98, 78]])


def as_form(name: str, shares: bool) -> NDArray[np.float64]:
    """The same boxes in another form."""
    boxes = XYWH.copy()
    if name == "xyxy":
        boxes[:, 2:] += boxes[:, :2]
    elif name == "cxcywh":
        boxes[:, :2] += boxes[:, 2:] / 2
    return boxes / [100, 80, 100, 80] if shares else boxes


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("name", ["xywh", "xyxy", "cxcywh"])
def test_the_form_is_the_one_in_which_boxes_lie_within_their_images(
    caplog: pytest.LogCaptureFixture, name: str, shares: bool
) -> None:
    caplog.set_level(logging.INFO)
    boxes = as_form(name, shares)
    form = form_of(boxes, SIZES, FILE)
    assert form == BoxForm(name, shares)
    assert np.abs(form.in_pixels(boxes, SIZES) - XYWH).max() < 1e-3
    unit = "shares of the image" if shares else "pixels"
    assert caplog.messages == [f"'set.parquet': boxes are {name} in {unit}, by their values"]


def test_where_several_forms_fit_that_of_coco_is_taken_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    boxes = np.array([[10.0, 10, 15, 15]])
    assert form_of(boxes, SIZES[:1], FILE) == BoxForm("xywh", shares=False)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "boxes may be xywh or xyxy or cxcywh, all of which fit; they are taken for xywh in pixels" in caplog.text


def test_a_few_wrong_boxes_do_not_decide() -> None:
    boxes, sizes = np.tile(XYWH, (100, 1)), np.tile(SIZES, (100, 1))
    boxes[7] = [90, 70, 60, 60]
    assert form_of(boxes, sizes, FILE) == BoxForm("xywh", shares=False)


def test_boxes_in_no_form_are_refused() -> None:
    with pytest.raises(UserError, match=r"neither xywh nor xyxy nor cxcywh: .*, 100% of them"):
        form_of(np.array([[500.0, 600, 700, 800]]), SIZES[:1], FILE)


def test_without_boxes_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert form_of(np.empty((0, 4)), np.empty((0, 2), dtype=np.int64), FILE).name == "xywh"
    assert not caplog.records
