"""Any transform of Albumentations may stand among the augmentations: boxes follow, are cut, or are dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import pytest
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import TrainBatchSampler
from rtdetrv2_train.errors import UserError

COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]])
BOXES = np.array([[4, 6, 24, 30], [60, 10, 88, 26], [40, 36, 52, 58]], dtype=np.float32)
SIZE = (60, 90)


def picture() -> NDArray[np.uint8]:
    """Grey with a rectangle of each colour."""
    image = np.full((*SIZE, 3), 90, dtype=np.uint8)
    for (left, top, right, bottom), colour in zip(BOXES.astype(int), COLOURS, strict=True):
        image[top:bottom, left:right] = colour
    return image


def samples(transform: Any, count: int = 40) -> list[tuple[Any, Any, Any]]:
    pipeline = TrainingPipeline({"a": transform})
    image = StoredImage.of_pixels(picture())
    return [pipeline(image, BOXES, np.arange(3), SIZE, ["a"], [seed]) for seed in range(count)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: A.RandomCrop(height=30, width=30),
        lambda: A.CenterCrop(height=20, width=20),
        lambda: A.RandomResizedCrop(size=(40, 40), scale=(0.05, 0.3)),
        lambda: A.RandomSizedCrop(min_max_height=(10, 30), size=(40, 40)),
        lambda: A.Crop(0, 0, 30, 30),
        lambda: A.PadIfNeeded(120, 120),
        lambda: A.RandomRotate90(p=1),
        lambda: A.Transpose(p=1),
        lambda: A.D4(p=1),
        lambda: A.Affine(translate_percent=(-0.9, 0.9), p=1),
        lambda: A.ShiftScaleRotate(shift_limit=0.6, scale_limit=0, rotate_limit=0, p=1),
        lambda: A.RandomScale((-0.6, 0.6), p=1),
    ],
)
def test_boxes_that_remain_are_those_that_can_be_seen(make: Callable[[], Any]) -> None:
    for image, boxes, labels in samples(make()):
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        seen = {
            label for label in range(3) if (np.abs(image.astype(int) - COLOURS[label]) < 30).all(axis=2).sum() > 250
        }
        assert seen <= set(labels.tolist()), "of what is more than a pixel wide no box is lost"
        for (left, top, right, bottom), label in zip(boxes * [90, 60, 90, 60], labels, strict=True):
            if (right - left) * (bottom - top) > 30:
                middle = image[int((top + bottom) / 2), int((left + right) / 2)].astype(int)
                assert (np.abs(middle - COLOURS[label]) < 60).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: A.Perspective(scale=(0.2, 0.4), p=1),
        lambda: A.Rotate(limit=90, p=1),
        lambda: A.SafeRotate(limit=90, p=1),
        lambda: A.Affine(shear=(-40, 40), rotate=(-90, 90), p=1),
        lambda: A.GridDistortion(p=1),
        lambda: A.ElasticTransform(p=1),
        lambda: A.CoarseDropout(p=1),
        lambda: A.ToGray(p=1),
    ],
)
def test_boxes_stay_within_the_image(make: Callable[[], Any]) -> None:
    for image, boxes, labels in samples(make()):
        assert image.shape == (*SIZE, 3)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(boxes) == len(labels)


def test_all_boxes_may_leave() -> None:
    for _, boxes, labels in samples(A.Crop(28, 30, 38, 60)):
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)


def test_boxes_that_stay_whole_keep_every_bit() -> None:
    """Cutting moves no box that needs none."""
    for _, boxes, labels in samples(A.VerticalFlip(p=1), 1):
        expected = BOXES[:, [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 60, 0, 60]
        np.testing.assert_allclose(boxes * [90, 60, 90, 60], expected, atol=1e-4)
        assert labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: A.RandomCrop(height=100, width=100),
            r"transforms\.a \(RandomCrop\) fails on an image of 90 x 60 pixels",
        ),
        (lambda: A.MaskDropout(p=1), r"augment\.transforms\.a \(MaskDropout\) fails"),
        (lambda: A.Normalize(), r"\(Normalize\) gives float32 of shape \[60, 90, 3\] instead of RGB bytes"),
        (lambda: A.ToFloat(p=1), r"\(ToFloat\) gives float32"),
        (lambda: A.ToGray(num_output_channels=1, p=1), r"\(ToGray\) gives uint8 of shape \[60, 90"),
        (lambda: A.ToTensorV2(), r"\(ToTensorV2\) gives torch\.uint8 of shape"),
    ],
)
def test_a_transform_that_does_not_work_is_named_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        samples(make(), 1)
    assert "\n" not in str(raised.value)


def test_a_worker_names_it_too(make_set: Any) -> None:
    annotations = load_annotations(*make_set(2))
    always = AugmentationSchedule({}, 2, 2)
    pipeline = TrainingPipeline({"a": A.RandomCrop(height=100, width=100)})
    sampler = TrainBatchSampler(2, 2, 0, (32, 32), None, always)
    loader = BatchLoader(DetectionDataset(annotations, pipeline, always), sampler, 1)
    with pytest.raises(
        UserError, match=r"^augment\.transforms\.a \(RandomCrop\) fails on an image of 64 x 48"
    ) as raised:
        list(loader)
    loader._iterator._shutdown_workers()  # type: ignore[union-attr]
    assert "\n" not in str(raised.value)
