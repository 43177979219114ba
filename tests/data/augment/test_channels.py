"""Augmentation of images of other channels than red, green and blue."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.photometric import Distortion, PhotometricDistortion
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.errors import UserError

CHANNELS = (1, 2, 4, 5, 13)
BOX, LABEL = np.array([[20.0, 10, 90, 70]], np.float32), np.array([1])
GEOMETRY: dict[str, Any] = {"zoom_out": ZoomOut(fill=7), "iou_crop": IoUCrop(), "flip": HorizontalFlip()}


def noise(channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (120, 160, channels), dtype=np.uint8)


def sample(pipeline: TrainingPipeline, image: NDArray[np.uint8], number: int) -> tuple[Any, Any, Any]:
    return pipeline(StoredImage.of_pixels(image), BOX, LABEL, (96, 64), list(pipeline.transforms), [number])


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_geometry_moves_all_channels_as_it_moves_rgb(channels: int, letterbox: bool) -> None:
    image = noise(channels)
    for number in range(12):
        pixels, boxes, _ = sample(TrainingPipeline(GEOMETRY, letterbox, channels), image, number)
        assert pixels.shape == (96, 64, channels)
        for channel in range(channels):
            alone = np.ascontiguousarray(image[..., [channel] * 3])
            expected, expected_boxes, _ = sample(TrainingPipeline(GEOMETRY, letterbox), alone, number)
            np.testing.assert_array_equal(pixels[..., channel], expected[..., 0])
            np.testing.assert_array_equal(boxes, expected_boxes)


@pytest.mark.parametrize("channels", CHANNELS)
def test_brightness_and_contrast_change_all_channels_and_hue_none(channels: int) -> None:
    image = noise(channels)
    unchanged = Distortion(saturation=1.4, hue=0.04, channels=(2, 0, 1))
    np.testing.assert_array_equal(unchanged.fitted_to(image)(image), image)
    brighter = Distortion(brightness=1.1)(image)
    np.testing.assert_array_equal(brighter, np.floor(np.clip(image * 1.1, 0, 255)).astype(np.uint8))
    for first in (True, False):
        contrast = Distortion(contrast=1.5, contrast_first=first).fitted_to(image)
        assert contrast.mean_grey == pytest.approx(image.mean(), abs=3)
        expected = np.clip(1.5 * image - 0.5 * (contrast.mean_grey or 0), 0, 255)
        np.testing.assert_allclose(contrast(image).astype(int), expected, atol=1)


def test_the_same_draws_are_made_whatever_the_channels() -> None:
    """So that a seed gives the same geometry."""
    transforms = {"photometric": PhotometricDistortion(p=1.0), **GEOMETRY}
    boxes = [sample(TrainingPipeline(transforms, channels=channels), noise(channels), 5)[1] for channels in (3, 4)]
    np.testing.assert_array_equal(*boxes)


def test_what_does_not_change_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        TrainingPipeline({"photometric": PhotometricDistortion()})
        assert not caplog.text
        TrainingPipeline({"photometric": PhotometricDistortion()}, channels=4)
    assert len(caplog.records) == 1
    assert "augment.transforms.photometric changes brightness and contrast only" in caplog.text


def test_a_canvas_has_one_value_or_one_for_each_channel() -> None:
    image = noise(4)
    pipeline = TrainingPipeline({"zoom_out": ZoomOut((3, 3), (1, 2, 3, 4), p=1.0)}, channels=4)
    pixels, _, _ = sample(pipeline, image, 0)
    assert [1, 2, 3, 4] in pixels.reshape(-1, 4).tolist()
    with pytest.raises(
        UserError, match=r"zoom_out\.fill is \[1, 2, 3\] and data\.channels is 4: give one value, or one"
    ):
        TrainingPipeline({"zoom_out": ZoomOut(fill=(1, 2, 3))}, channels=4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_albumentations_gets_all_channels(channels: int) -> None:
    pipeline = TrainingPipeline({"mine": A.VerticalFlip(p=1.0)}, channels=channels)
    pixels, _, _ = sample(pipeline, noise(channels), 0)
    plain, _, _ = sample(TrainingPipeline({}, channels=channels), noise(channels)[::-1].copy(), 0)
    np.testing.assert_array_equal(pixels, plain)
