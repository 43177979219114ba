from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from rtdetrv2_train.data.augment.geometric import GeometricTransform, HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.photometric import Distortion, PhotometricDistortion, mean_grey
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline, Transform
from rtdetrv2_train.data.augment.window import Window
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.errors import UserError
from tests.data.augment.distribution import FIGURES_FILE, Labelled, described, photographs, reference_figures, spread

STRONG: dict[str, Callable[[], Transform]] = {
    "photometric": PhotometricDistortion,
    "zoom_out": ZoomOut,
    "iou_crop": IoUCrop,
    "flip": HorizontalFlip,
}


@lru_cache
def picture(seed: int = 0, height: int = 60, width: int = 90) -> NDArray[np.uint8]:
    """Smooth colours with some noise, as in photographs."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return (smooth + generator.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


BOXES = np.array([[3, 4, 30, 25], [40, 10, 85.5, 55], [10, 30, 24, 58], [60, 2, 64, 7]], dtype=np.float32)
LABELS = np.array([5, 0, 79, 5], dtype=np.int64)


def run(transform: GeometricTransform, seed: int = 0, image: NDArray[np.uint8] | None = None) -> Any:
    """One transform alone at the image's own scale: the image, and boxes in its pixels with their labels."""
    stored = StoredImage.of_pixels(picture() if image is None else image)
    rows = np.column_stack([BOXES, LABELS]).astype(np.float64)
    window = Window.whole(stored.height, stored.width)
    window, rows = transform(window, rows, np.random.default_rng(seed))
    pixels, boxes = window.render(stored, rows[:, :4], (window.height, window.width))
    return pixels, boxes, rows[:, 4]


def through(
    pipeline: TrainingPipeline,
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32] = BOXES,
    labels: NDArray[np.int64] = LABELS,
    **arguments: Any,
) -> Any:
    """A pipeline on an image that is decoded already."""
    defaults: dict[str, Any] = {"size": (60, 90), "active": list(pipeline.transforms), "seed": [0]}
    return pipeline(StoredImage.of_pixels(image), boxes, labels, **(defaults | arguments))


def distorted(image: NDArray[np.uint8], **operations: Any) -> Any:
    return Distortion(**operations).fitted_to(image)(image)


@pytest.mark.parametrize(
    ("name", "factors", "mean_tolerance"),
    [
        ("brightness", (0.875, 1.0, 1.125), 0.01),
        ("contrast", (0.5, 1.0, 1.5), 0.5),
        ("saturation", (0.5, 1.0, 1.5), 0.5),
    ],
)
def test_operators_agree_with_torchvision_to_one_level(
    name: str, factors: tuple[float, ...], mean_tolerance: float
) -> None:
    image = picture(1)
    theirs = getattr(v2.functional, f"adjust_{name}")
    for factor in factors:
        expected = theirs(torch.from_numpy(image).permute(2, 0, 1), factor).permute(1, 2, 0).numpy().astype(int)
        difference = distorted(image, **{name: factor}) - expected
        assert np.abs(difference).max() <= 1
        assert abs(difference.mean()) < mean_tolerance


@pytest.mark.parametrize("shift", [-0.05, -0.02, 0.05, 0.4])
def test_hue_agrees_with_torchvision_up_to_the_rounding_of_hue_to_bytes(shift: float) -> None:
    image = picture(2)
    expected = v2.functional.adjust_hue(torch.from_numpy(image).permute(2, 0, 1), shift).permute(1, 2, 0).numpy()
    difference = np.abs(distorted(image, hue=shift) - expected.astype(int))
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 5
    assert np.abs(image - expected.astype(int)).mean() > 5 * difference.mean()


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("hue", [0.04, None])
def test_operations_together_are_those_of_torchvision_one_after_the_other(contrast_first: bool, hue: float) -> None:
    image = picture(3)
    steps: list[tuple[str, Any]] = [("brightness", 1.1), ("saturation", 1.3), ("hue", hue)]
    steps.insert(1 if contrast_first else 3, ("contrast", 1.4))
    expected = torch.from_numpy(image).permute(2, 0, 1)
    for name, value in steps:
        if value is not None:
            expected = getattr(v2.functional, f"adjust_{name}")(expected, value)
    expected = expected[[2, 0, 1]].permute(1, 2, 0)
    ours = distorted(image, **dict(steps), contrast_first=contrast_first, channels=(2, 0, 1))
    difference = np.abs(ours - expected.numpy().astype(int))
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) <= 7


def test_contrast_of_a_part_uses_the_mean_of_the_whole_image() -> None:
    image = picture(4, 300, 400)
    distortion = Distortion(contrast=0.5, brightness=1.1).fitted_to(image)
    np.testing.assert_array_equal(distortion(image[100:150, 50:80]), distortion(image)[100:150, 50:80])
    brightened = Distortion(brightness=1.1)(image)
    assert distortion.mean_grey == pytest.approx(mean_grey(brightened), abs=0.5)
    with pytest.raises(ValueError, match="fitted_to"):
        Distortion(contrast=0.5)(image)


def test_photometric_distortion_draws_each_operation_with_its_own_coin() -> None:
    transform, random = PhotometricDistortion(), np.random.default_rng(0)
    drawn = [vars(transform.draw(random)) for _ in range(4000)]
    names = ("brightness", "contrast", "saturation", "hue", "channels")
    applied = np.array([[params[name] is not None for name in names] for params in drawn], dtype=float)
    # Standard deviations: 0.008 of a share, 0.016 of a correlation.
    assert np.abs(applied.mean(axis=0) - 0.5).max() < 0.032
    assert np.abs(np.corrcoef(applied.T) - np.eye(5)).max() < 0.064
    for name, (low, high) in {"brightness": (0.875, 1.125), "contrast": (0.5, 1.5), "hue": (-0.05, 0.05)}.items():
        factors = [params[name] for params in drawn if params[name] is not None]
        assert low <= min(factors) < low + 0.01 * (high - low)
        assert high >= max(factors) > high - 0.01 * (high - low)
    assert len({tuple(params["channels"]) for params in drawn if params["channels"]}) == 6


def test_photometric_distortion_with_probability_zero_changes_nothing() -> None:
    image, boxes, labels = through(TrainingPipeline({"photometric": PhotometricDistortion(p=0)}), picture())
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_allclose(boxes * [90, 60, 90, 60], BOXES, atol=1e-4)
    assert labels.tolist() == LABELS.tolist()


def test_zoom_out_puts_the_image_with_its_boxes_on_a_canvas() -> None:
    ratios = []
    for seed in range(50):
        image, boxes, labels = run(ZoomOut(p=1.0, fill=(7, 8, 9)), seed)
        left, top = np.round(boxes[0, :2] - BOXES[0, :2]).astype(int)
        np.testing.assert_allclose(boxes - [left, top, left, top], BOXES, atol=1e-3)
        np.testing.assert_array_equal(image[top : top + 60, left : left + 90], picture())
        outside = np.ones(image.shape[:2], dtype=bool)
        outside[top : top + 60, left : left + 90] = False
        assert (image[outside] == [7, 8, 9]).all()
        assert labels.tolist() == LABELS.tolist()
        ratios.append(image.shape[1] / 90)
        assert image.shape[0] == pytest.approx(60 * ratios[-1], abs=1)
    assert 1 <= min(ratios) < 1.3
    assert 3.7 < max(ratios) <= 4


def test_iou_crop_keeps_and_clips_the_boxes_with_their_centre_inside() -> None:
    coordinates = np.dstack([*np.meshgrid(np.arange(90), np.arange(60)), np.zeros((60, 90))]).astype(np.uint8)
    cropped = 0
    for seed in range(100):
        image, boxes, labels = run(IoUCrop(p=1.0), seed, coordinates)
        height, width = image.shape[:2]
        left, top = image[0, 0, :2].astype(int)
        np.testing.assert_array_equal(image, coordinates[top : top + height, left : left + width])
        centres = (BOXES[:, :2] + BOXES[:, 2:]) / 2 - [left, top]
        inside = ((centres > 0) & (centres < [width, height])).all(axis=1)
        expected = (BOXES[inside] - [left, top, left, top]).clip(0, [width, height, width, height])
        np.testing.assert_allclose(boxes, expected, atol=1e-3)
        assert labels.tolist() == LABELS[inside].tolist()
        assert inside.any()
        assert 0.5 <= width / height <= 2
        assert min(width / 90, height / 60) >= 0.28
        cropped += (height, width) != (60, 90)
    assert cropped > 50


def test_iou_crop_demands_the_overlap_that_was_drawn() -> None:
    image, boxes, _ = run(IoUCrop(p=1.0, sampler_options=[0.7]), 1)
    assert image.shape[:2] != (60, 90)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    # Of the best box no more than 30 % of the union with the crop may be missing.
    assert areas.max() / (image.shape[0] * image.shape[1]) >= 0.7


def test_iou_crop_leaves_an_image_alone_where_no_crop_fits() -> None:
    pipeline = TrainingPipeline({"iou_crop": IoUCrop(p=1.0, sampler_options=[0.5])})
    empty = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)
    image, boxes, labels = through(pipeline, picture(), *empty)
    np.testing.assert_array_equal(image, picture())
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)
    tiny = np.array([[1, 1, 2, 2]], dtype=np.float32)
    image, boxes, _ = through(pipeline, picture(), tiny, LABELS[:1])
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_allclose(boxes * [90, 60, 90, 60], tiny, atol=1e-4)


def test_boxes_under_one_pixel_are_dropped_before_and_after_resizing() -> None:
    pipeline = TrainingPipeline({})
    boxes = np.array([[0, 0, 0.9, 20], [5, 5, 6, 20], [10, 10, 11.9, 40], [20, 20, 60, 40]], dtype=np.float32)
    same = through(pipeline, picture(), boxes, np.arange(4))
    assert same[2].tolist() == [1, 2, 3]
    halved = through(pipeline, picture(), boxes, np.arange(4), size=(30, 45))
    assert halved[2].tolist() == [3]
    grown = through(pipeline, picture(), boxes, np.arange(4), size=(600, 900))
    assert grown[2].tolist() == [1, 2, 3]


def test_equal_seeds_give_equal_bits_whatever_was_done_before() -> None:
    one, other = (TrainingPipeline({name: make() for name, make in STRONG.items()}) for _ in range(2))
    arguments: dict[str, Any] = {"size": (64, 96), "active": list(STRONG)}
    for seed in range(20):
        through(other, picture(9), **arguments, seed=[1, 5, seed])
        first = through(one, picture(), **arguments, seed=[0, 0, seed])
        second = through(other, picture(), **arguments, seed=[0, 0, seed])
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)
    different = through(one, picture(), **arguments, seed=[0, 1, 19])
    assert not np.array_equal(first[0], different[0])


def test_inputs_are_left_as_they_were() -> None:
    pipeline = TrainingPipeline({name: make() for name, make in STRONG.items()})
    image, boxes = picture(), BOXES.copy()
    for seed in range(10):
        through(pipeline, image, boxes, LABELS, size=(64, 96), seed=[seed])
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(boxes, BOXES)


def test_only_active_augmentations_are_applied() -> None:
    transforms = {"zoom_out": ZoomOut(p=1.0, side_range=(2, 2)), "flip": HorizontalFlip(p=1.0), "iou_crop": None}
    pipeline = TrainingPipeline(transforms)
    assert list(pipeline.transforms) == ["zoom_out", "flip"]
    image, boxes, _ = through(pipeline, picture(), active=["flip"])
    np.testing.assert_array_equal(image, picture()[:, ::-1])
    np.testing.assert_allclose(boxes[:, [0, 2]] * 90, 90 - BOXES[:, [2, 0]], atol=1e-4)
    image, boxes, _ = through(pipeline, picture(), active=[])
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_allclose(boxes * [90, 60, 90, 60], BOXES, atol=1e-4)


def test_transforms_of_albumentations_see_what_was_done_before_them() -> None:
    seen = []

    class Spy(A.ImageOnlyTransform):
        def apply(self, img: Any, **params: Any) -> Any:
            seen.append(img)
            return 255 - img

    transforms: dict[str, Any] = {
        "zoom_out": ZoomOut(p=1.0, side_range=(2, 2)),
        "spy": Spy(p=1.0),
        "vertical": A.VerticalFlip(p=1.0),
        "flip": HorizontalFlip(p=1.0),
    }
    with_spy = through(TrainingPipeline(transforms), picture(), size=(120, 180))
    without = through(TrainingPipeline({"zoom_out": transforms["zoom_out"]}), picture(), size=(120, 180))
    np.testing.assert_array_equal(seen[0], without[0])
    np.testing.assert_array_equal(with_spy[0], 255 - without[0][::-1, ::-1])
    np.testing.assert_allclose(with_spy[1], 1 - without[1][:, [2, 3, 0, 1]], atol=1e-6)
    assert with_spy[2].tolist() == LABELS.tolist()


def test_canvases_of_two_colours_each_keep_theirs() -> None:
    moves = {name: ZoomOut(p=1.0, side_range=(2, 2), fill=fill) for name, fill in (("a", (9, 8, 7)), ("b", 50))}
    image, boxes, labels = through(TrainingPipeline(moves), np.full((60, 90, 3), 200, dtype=np.uint8), size=(240, 360))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    assert colours.tolist() == [[9, 8, 7], [50, 50, 50], [200, 200, 200]]
    assert (counts / (60 * 90)).tolist() == [3, 12, 1]
    np.testing.assert_allclose((boxes[:, 2:] - boxes[:, :2]) * [360, 240], BOXES[:, 2:] - BOXES[:, :2], atol=1e-3)
    assert labels.tolist() == LABELS.tolist()


def test_a_photometric_distortion_after_a_canvas_changes_the_canvas_too() -> None:
    transforms = {"zoom_out": ZoomOut(p=1.0, side_range=(2, 2), fill=100), "photometric": PhotometricDistortion(p=1.0)}
    pipeline = TrainingPipeline(transforms)
    plain = through(pipeline, picture(), active=["zoom_out"])[0]
    changed = through(pipeline, picture())[0]
    canvas = (plain == 100).all(axis=2)
    assert canvas.mean() > 0.6
    assert not (changed[canvas] == 100).all(axis=1).any()


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(UserError, match=r"augment\.transforms\.flip is a str"):
        TrainingPipeline({"flip": "HorizontalFlip"})  # type: ignore[dict-item]


def test_the_coins_of_different_transforms_are_independent() -> None:
    pipeline = TrainingPipeline({"zoom_out": ZoomOut(p=0.5, side_range=(2, 2)), "flip": HorizontalFlip(p=0.5)})
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:16, :16], image[:16, 16:] = 60, 200
    coins = []
    for seed in range(600):
        box = np.array([[0, 0, 16, 32]], dtype=np.float32)
        result, boxes, _ = through(pipeline, image, box, LABELS[:1], size=(32, 32), seed=[seed])
        zoomed = boxes[0, 3] - boxes[0, 1] < 0.9
        row = result[result.max(axis=(1, 2)) > 0][2, :, 0].astype(int)
        coins.append((zoomed, np.argmax(row == 200) < np.argmax(row == 60)))
    counts = np.array([[sum(pair == (a, b) for pair in coins) for b in (False, True)] for a in (False, True)])
    # 150 are expected of each, with a standard deviation of 11.
    assert np.abs(counts - 150).max() < 44


def our_figures(samples: list[Labelled], size: tuple[int, int], count: int) -> NDArray[np.float64]:
    pipeline = TrainingPipeline({name: make() for name, make in STRONG.items()})
    figures = []
    for seed in range(count):
        image, boxes, labels = samples[seed % len(samples)]
        pixels, left, _ = through(pipeline, image, boxes, labels, size=size, seed=[seed])
        figures.append(described(pixels, left))
    return np.array(figures)


@pytest.mark.slow
def test_the_strong_pipeline_has_the_distribution_of_torchvisions() -> None:
    """Means over 400 samples of each, which may differ by four standard errors of the difference."""
    samples = [(picture(seed), BOXES, LABELS) for seed in range(20)]
    ours, theirs = our_figures(samples, (48, 72), 400), reference_figures(samples, (48, 72), 400)
    standard_error = np.sqrt((spread(theirs, 20) + spread(ours, 20)) / 400)
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / standard_error
    assert np.abs(z).max() < 4, z


@pytest.mark.slow
def test_on_photographs_the_distribution_is_that_of_torchvisions(shared_data: Path) -> None:
    """Means over 2,000 samples of each; torchvision's were computed once, see distribution.py.

    Four standard errors of the difference are allowed: nine figures stay within them in 999 of 1,000 seeds if the
    distributions are the same, and a mean that is off by a sixth of its spread among the draws of one image does not.
    """
    expected = json.loads(FIGURES_FILE.read_text())
    samples = photographs(shared_data / "tiny_coco")
    ours = our_figures(samples, tuple(expected["size"]), expected["draws"])
    standard_error = np.sqrt((expected["variances"] + spread(ours, len(samples))) / expected["draws"])
    z = (ours.mean(axis=0) - expected["means"]) / standard_error
    assert np.abs(z).max() < 4, z


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZoomOut(side_range=(4, 1)), r"zoom_out\.side_range is \[4, 1\]"),
        (lambda: ZoomOut(side_range=(0.5, 1)), r"zoom_out\.side_range"),
        (lambda: ZoomOut(p=1.5), r"zoom_out\.p is 1\.5"),
        (lambda: IoUCrop(min_scale=0.9, max_scale=0.3), r"iou_crop\.min_scale and max_scale"),
        (lambda: IoUCrop(sampler_options=[]), r"sampler_options is empty"),
        (lambda: PhotometricDistortion(hue=(-1, 1)), r"photometric\.hue"),
        (lambda: PhotometricDistortion(contrast=(0.5,)), r"photometric\.contrast"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
