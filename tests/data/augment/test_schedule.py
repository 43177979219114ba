from __future__ import annotations

from typing import Any

import pytest

from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.errors import UserError


def test_an_augmentation_is_active_from_its_start_up_to_its_stop() -> None:
    schedule = AugmentationSchedule({"zoom_out": {"start": 4, "stop": 71}, "flip": {"stop": None}}, 72, 72)
    active = [epoch for epoch in range(72) if schedule.active("zoom_out", epoch)]
    assert active == list(range(4, 71))
    assert all(schedule.active(name, epoch) for name in ("flip", "iou_crop") for epoch in range(72))


@pytest.mark.parametrize(
    ("max_epochs", "first_inactive"), [(72, 71), (144, 142), (12, 11), (10, 9), (2, 1), (1, 1), (500, 493)]
)
def test_a_run_of_another_length_scales_the_epochs(max_epochs: int, first_inactive: int) -> None:
    schedule = AugmentationSchedule({"iou_crop": {"stop": 71}}, 72, max_epochs)
    assert schedule.active("iou_crop", first_inactive - 1)
    assert not schedule.active("iou_crop", first_inactive)


def test_phases_that_follow_each_other_still_do_so_in_a_short_run() -> None:
    schedule = AugmentationSchedule({"flip": {"stop": 1}, "zoom_out": {"start": 1}}, 72, 3)
    assert [schedule.active("flip", epoch) for epoch in range(3)] == [True, False, False]
    assert [schedule.active("zoom_out", epoch) for epoch in range(3)] == [False, True, True]


def test_stop_at_zero_means_never() -> None:
    assert not AugmentationSchedule({"flip": {"stop": 0}}, 72, 10).active("flip", 0)


@pytest.mark.parametrize(
    ("phase", "last"),
    [
        ({"start": 4, "lasts": 0.5}, 39),
        ({"start": 4, "lasts": 0.5, "stop": 71}, 39),
        ({"start": 4, "lasts": 0.5, "stop": 30}, 29),
        ({"start": 4, "lasts": None, "stop": 30}, 29),
        ({"lasts": 0.25}, 17),
    ],
)
def test_a_phase_may_last_for_a_share_of_all_epochs(phase: Any, last: int) -> None:
    schedule = AugmentationSchedule({"mosaic": phase}, 72, 72)
    assert [epoch for epoch in range(72) if schedule.active("mosaic", epoch)] == list(
        range(phase.get("start", 0), last + 1)
    )
    assert not AugmentationSchedule({"mosaic": {"start": 4, "lasts": 0}}, 72, 72).active("mosaic", 4)


def test_changes_name_what_switches() -> None:
    phases = {"zoom_out": {"stop": 71}, "multiscale": {"stop": 71}, "blur": {"start": 3}}
    schedule = AugmentationSchedule(phases, 72, 72, known_names=["blur"])
    assert schedule.changes(0) == []
    assert schedule.changes(70) == []
    assert schedule.changes(3) == ["blur is on from epoch 3 of 72"]
    assert schedule.changes(71) == ["zoom_out is off from epoch 71 of 72", "multiscale is off from epoch 71 of 72"]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"zoomout": {"stop": 3}}, "names 'zoomout', .* did you mean 'zoom_out'"),
        ({"zoom_out": {"end": 3}}, r"augment\.schedule\.zoom_out\.end is no key .* did you mean 'st"),
        ({"zoom_out": {"stop": -1}}, r"augment\.schedule\.zoom_out\.stop is -1"),
        ({"zoom_out": {"stop": 2.5}}, r"augment\.schedule\.zoom_out\.stop is 2\.5"),
        ({"zoom_out": {"lasts": 2}}, r"augment\.schedule\.zoom_out\.lasts is 2: give a number from 0 to 1"),
        ({"zoom_out": {"start": 5, "stop": 3}}, "stops at epoch 3, before it starts at 5"),
    ],
)
def test_nonsense_is_refused(phases: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        AugmentationSchedule(phases, 72, 72)


@pytest.mark.parametrize("value", [0, -2, None, 1.5])
def test_a_run_needs_a_length(value: Any) -> None:
    with pytest.raises(UserError, match=r"data\.max_epochs is"):
        AugmentationSchedule({}, 72, value)


def test_a_run_whose_length_comes_later_scales_the_epochs_then() -> None:
    schedule = AugmentationSchedule({"iou_crop": {"stop": 71}}, 72, -1).lasting(12)
    assert [schedule.active("iou_crop", epoch) for epoch in (10, 11)] == [True, False]


def test_an_augmentation_that_a_run_does_not_have_is_not_said_to_stop() -> None:
    schedule = AugmentationSchedule({"zoom_out": {"stop": 1}, "multiscale": {"stop": 1}}, 2, 2).of(["zoom_out"])
    assert schedule.changes(1) == ["zoom_out is off from epoch 1 of 2"]
    shorter = AugmentationSchedule({"zoom_out": {"stop": 9}, "flip": {"start": 2}}, 10, 10)
    assert shorter.stopped_by(5).ends_earlier_than(shorter) == ["zoom_out"]
    assert shorter.stopped_by(10).ends_earlier_than(shorter) == []


def test_what_stops_can_be_made_to_stop_earlier() -> None:
    schedule = AugmentationSchedule({"zoom_out": {"stop": 117}, "flip": {"start": 2}}, 120, 12).stopped_by(6)
    assert [schedule.active("zoom_out", epoch) for epoch in (5, 6)] == [True, False]
    assert schedule.active("flip", 11)
