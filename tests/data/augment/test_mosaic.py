from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rtdetrv2_train.data.augment.geometric import GeometricTransform, HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.mosaic import Labelled, Mosaic, MosaicImage, MosaicPlan
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.placement import drawn, scaling
from rtdetrv2_train.data.augment.window import BoxArray, Window
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.errors import UserError

SIZES = ((203, 301), (320, 213), (150, 150), (407, 533))
AS_IT_IS = MosaicPlan((0, 0, 0), 0.0, (0.0, 0.0), 1.0)
NONE = np.zeros((0, 4), np.float32)


def box_of(height: int, width: int) -> NDArray[np.float32]:
    return np.array([[width // 4, height // 3, width * 3 // 4, height * 4 // 5]], dtype=np.float32)


def four(folder: Path | None = None, shown: Sequence[int] = range(4)) -> list[Labelled]:
    """Grey images of several shapes, each with a white rectangle in a box; JPEGs if there is a folder for them.

    Args:
        folder: for the JPEGs.
        shown: which images have their rectangle.
    """
    images: list[Labelled] = []
    for number, (height, width) in enumerate(SIZES):
        pixels = np.full((height, width, 3), 60, dtype=np.uint8)
        box = box_of(height, width)
        left, top, right, bottom = box[0].astype(int)
        if number in shown:
            pixels[top:bottom, left:right] = 240
        stored = StoredImage.of_pixels(pixels)
        if folder:
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95, subsampling=0)
            stored = StoredImage.read(folder / f"{number}.jpg")
        images.append((stored, box, np.array([number])))
    return images


def whole(image: MosaicImage, boxes: BoxArray, size: tuple[int, int]) -> tuple[NDArray[np.uint8], BoxArray]:
    return image.render(Window.whole(image.height, image.width), boxes, size)


def extent(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Corners of what is more white than grey."""
    rows, columns = np.nonzero(pixels[..., 0] > 150)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("stored", ["pixels", "jpeg"])
@pytest.mark.parametrize("size", [(640, 640), (384, 640), (160, 96)])
def test_boxes_bound_the_pixels(size: tuple[int, int], stored: str, mirrored: bool, tmp_path: Path) -> None:
    checked = 0
    for number in range(4):
        images = four(tmp_path if stored == "jpeg" else None, [number])
        for seed in range(12):
            plan = Mosaic(p=1.0).draw(np.random.default_rng(seed), 4)
            assert plan is not None
            mosaic, boxes, labels = plan.laid_out(images, size)
            window = Window.whole(mosaic.height, mosaic.width)
            pixels, boxes = mosaic.render(window.flipped() if mirrored else window, boxes, size)
            assert pixels.shape == (*size, 3)
            for box in boxes[labels == number]:
                if (box[:2] > 2).all() and (box[2:] < np.array(size[::-1]) - 2).all():
                    np.testing.assert_allclose(box, extent(pixels), atol=1.01)
                    checked += 1
    assert checked > 25


@pytest.mark.parametrize("letterbox", [False, True])
def test_each_image_is_at_the_top_left_of_its_cell(letterbox: bool) -> None:
    """Shorter sides of 320, cells as large as the largest sides: 640 high and 474 wide here."""
    mosaic, boxes, labels = AS_IT_IS.laid_out(four(), (640, 640))
    sizes = [(320, 474), (480, 320), (320, 320), (320, 419)]
    assert (mosaic.height, mosaic.width) == (2 * 480, 2 * 474)
    pixels, boxes = whole(mosaic, boxes, (960, 948))
    expected = np.zeros((960, 948), dtype=bool)
    for (height, width), (top, left) in zip(sizes, ((0, 0), (0, 474), (480, 0), (480, 474)), strict=True):
        expected[top : top + height, left : left + width] = True
    assert (pixels.any(axis=2) != expected).mean() < 0.002, "but for the pixels of an edge"
    assert labels.tolist() == [0, 1, 2, 3]
    for number, (top, left) in enumerate(((0, 0), (0, 474), (480, 0), (480, 474))):
        scale = np.array(sizes[number]) / SIZES[number]
        placed = box_of(*SIZES[number])[0] * [*scale[::-1], *scale[::-1]] + [left, top, left, top]
        np.testing.assert_allclose(boxes[number], placed, atol=1e-4)
    pipeline = TrainingPipeline({}, letterbox)
    pixels, shares, _ = pipeline(mosaic, boxes, labels, (640, 320), [], [0])
    rows = np.flatnonzero(pixels.any(axis=(1, 2))).max() + 1
    assert rows == pytest.approx(320 * (800 / 948 if letterbox else 1600 / 960), abs=2), "the aspect ratio is kept"
    assert shares[:, 3].max() == pytest.approx(boxes[:, 3].max() / 960 * (324 / 640 if letterbox else 1), abs=1e-3)


def test_draws_have_the_published_distribution() -> None:
    random, mosaic = np.random.default_rng(0), Mosaic()
    draws = [mosaic.draw(random, 50) for _ in range(4000)]
    plans = [plan for plan in draws if plan is not None]
    assert len(plans) == pytest.approx(2000, abs=130)
    for values, low, high in (
        (np.array([plan.degrees for plan in plans]), -10, 10),
        (np.array([plan.shift for plan in plans]).ravel(), -0.1, 0.1),
        (np.array([plan.scale for plan in plans]), 0.5, 1.5),
        (np.array([plan.others for plan in plans]).ravel(), 0, 49),
    ):
        assert low <= values.min() < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert values.std() == pytest.approx((high - low) / 12**0.5, rel=0.06)


def published(images: list[Labelled], plan: MosaicPlan, size: tuple[int, int]) -> tuple[Any, Any]:
    """What torchvision makes of the same draws, and its boxes: a canvas, then an affine map, then a resize."""
    resized = []
    for image, boxes, _ in images:
        pixels, _ = image.decode()
        given = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=pixels.shape[:2])
        resized.append(v2.Resize(320)(Image.fromarray(pixels), given))
    height = max(image.height for image, _ in resized)
    width = max(image.width for image, _ in resized)
    canvas, moved = Image.new("RGB", (2 * width, 2 * height)), []
    for (image, boxes), (x, y) in zip(resized, ((0, 0), (width, 0), (0, height), (width, height)), strict=True):
        canvas.paste(image, (x, y))
        moved.append(boxes.as_subclass(torch.Tensor) + torch.tensor([x, y, x, y]))
    boxes = tv_tensors.BoundingBoxes(torch.cat(moved), format="XYXY", canvas_size=(2 * height, 2 * width))
    shift = [plan.shift[0] * 2 * width, plan.shift[1] * 2 * height]
    arguments = {"angle": plan.degrees, "translate": shift, "scale": plan.scale, "shear": [0.0, 0.0]}
    canvas = F.affine(canvas, **arguments, interpolation=v2.InterpolationMode.BILINEAR)
    boxes = F.affine(boxes, **arguments)
    return np.asarray(F.resize(canvas, list(size))), F.resize(boxes, list(size)).numpy()


def test_samples_are_those_of_torchvisions_operators() -> None:
    """Images of waves, which a sample must not show otherwise than the one that is made in three steps."""
    images: list[Labelled] = []
    for number, (height, width) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        waves = np.stack([np.sin(x / 9 + number), np.cos(y / 11), np.sin((x + y) / 13)], axis=2)
        stored = StoredImage.of_pixels((waves * 100 + 128).astype(np.uint8))
        images.append((stored, box_of(height, width), np.array([number])))
    for seed in range(8):
        plan = Mosaic(p=1.0).draw(np.random.default_rng(seed), 4)
        assert plan is not None
        pixels, boxes = published(images, plan, (640, 640))
        mosaic, ours, labels = plan.laid_out(images, (640, 640))
        result, ours = whole(mosaic, ours, (640, 640))
        np.testing.assert_allclose(ours, boxes[labels], atol=0.02)
        far = np.abs(result.astype(int) - pixels).max(axis=2)
        assert far.mean() < 3
        inside = cv2.erode((pixels.max(axis=2) > 30).astype(np.uint8), np.ones((7, 7))) > 0
        assert np.percentile(far[inside], 99) < 20, "edges apart"


def test_photographs_are_as_sharp_as_those_that_were_made_small_first(shared_data: Path) -> None:
    """Compared with four times as many samples in each direction, averaged."""
    from rtdetrv2_train.data.index import load_annotations

    folder = shared_data / "tiny_coco"
    annotations = load_annotations(folder / "annotations/instances_train2017.json", folder / "train2017")
    off, off_published = [], []
    for seed in range(4):
        plan = Mosaic(p=1.0).draw(np.random.default_rng(seed), len(annotations))
        assert plan is not None
        images = [(annotations.image(index), NONE, np.zeros(0, np.int64)) for index in (seed, *plan.others)]
        mosaic, boxes, _ = plan.laid_out(images, (640, 640))
        decoded = [(StoredImage.of_pixels(image.decode()[0]), b, n) for image, b, n in images]
        large, _ = whole(plan.laid_out(decoded, (640, 640))[0], boxes, (2560, 2560))
        exact = large.reshape(640, 4, 640, 4, 3).mean(axis=(1, 3))
        ours, _ = whole(mosaic, boxes, (640, 640))
        off.append(np.abs(ours - exact).mean())
        off_published.append(np.abs(published(images, plan, (640, 640))[0] - exact).mean())
    assert np.mean(off) < 1.05 * np.mean(off_published) < 3


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 13])
def test_all_channels_are_placed_alike(channels: int) -> None:
    random = np.random.default_rng(0)
    many = [random.integers(0, 256, (*size, channels), dtype=np.uint8) for size in SIZES]
    plan = MosaicPlan((0, 0, 0), 7.0, (0.05, -0.08), 0.9)
    for channel in {0, channels - 1}:
        rgb = [np.ascontiguousarray(pixels[..., [channel] * 3]) for pixels in many]
        made = [
            whole(
                plan.laid_out([(StoredImage.of_pixels(p), NONE, np.zeros(0)) for p in images], (96, 64))[0],
                NONE,
                (96, 64),
            )
            for images in (many, rgb)
        ]
        assert made[0][0].shape == (96, 64, channels)
        np.testing.assert_allclose(made[0][0][..., channel].astype(int), made[1][0][..., 0], atol=8)


def test_a_mosaic_takes_no_zoom_out_and_no_crop_but_flips_and_colours() -> None:
    mosaic, boxes, labels = AS_IT_IS.laid_out(four(), (64, 64))
    plain, shares, _ = TrainingPipeline({})(mosaic, boxes, labels, (64, 64), [], [0])
    strong: dict[str, Any] = {"zoom_out": ZoomOut(p=1.0), "iou_crop": IoUCrop(p=1.0)}
    pixels, unchanged, _ = TrainingPipeline(strong)(mosaic, boxes, labels, (64, 64), list(strong), [0])
    np.testing.assert_array_equal(pixels, plain)
    np.testing.assert_array_equal(unchanged, shares)
    pixels, flipped, _ = TrainingPipeline({"f": HorizontalFlip(p=1.0)})(mosaic, boxes, labels, (64, 64), ["f"], [0])
    np.testing.assert_allclose(pixels.astype(int), plain[:, ::-1], atol=4)
    np.testing.assert_allclose(flipped, shares[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0], atol=1e-6)
    colour = {"photometric": PhotometricDistortion(brightness=(1.1, 1.1), p=1.0, contrast=(1, 1), saturation=(1, 1))}
    pixels, unchanged, _ = TrainingPipeline(colour)(mosaic, boxes, labels, (64, 64), ["photometric"], [0])
    assert not np.array_equal(pixels, plain)
    np.testing.assert_array_equal(unchanged, shares)


class Corner(GeometricTransform):
    """A user's transform: the top left quarter."""

    def apply(self, window: Window, boxes: BoxArray, random: np.random.Generator) -> tuple[Window, BoxArray]:
        frame = (0, 0, window.width // 2, window.height // 2)
        return window.framed(frame), boxes.clip(0, [*frame[2:], *frame[2:], np.inf])


@pytest.mark.parametrize("make", [lambda: Corner(p=1.0), lambda: A.VerticalFlip(p=1.0), lambda: A.Blur(p=1.0)])
def test_further_transforms_take_a_mosaic_as_they_take_an_image(make: Callable[[], Any]) -> None:
    mosaic, boxes, labels = MosaicPlan((0, 0, 0), 5.0, (0.0, 0.1), 0.8).laid_out(four(), (96, 64))
    rendered = StoredImage.of_pixels(whole(mosaic, boxes, (mosaic.height, mosaic.width))[0])
    pipeline = TrainingPipeline({"mine": make()})
    results = [pipeline(image, boxes, labels, (96, 64), ["mine"], [0]) for image in (mosaic, rendered)]
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    empty = TrainingPipeline({"mine": make()})(mosaic, boxes[:0], labels[:0], (96, 64), ["mine"], [0])
    assert empty[1].shape == (0, 4)


def test_boxes_are_clipped_and_dropped_where_less_than_a_pixel_is_left() -> None:
    boxes = np.array([[0, 0, 320, 320], [0, 0, 170, 20], [0, 0, 161, 9], [300, 100, 320, 100.9]], np.float32)
    image = StoredImage.of_pixels(np.zeros((320, 320, 3), np.uint8))
    others = [(image, NONE, np.zeros(0, np.int64))] * 3
    plan = MosaicPlan((0, 0, 0), 0.0, (-0.25, 0.0), 1.0)
    _, kept, labels = plan.laid_out([(image, boxes, np.arange(4)), *others], (640, 640))
    np.testing.assert_allclose(kept, [[0, 0, 160, 320], [0, 0, 10, 20], [0, 0, 1, 9]], atol=1e-4)
    assert labels.tolist() == [0, 1, 2]


def test_what_is_not_on_the_canvas_is_not_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    decode = StoredImage.decode
    monkeypatch.setattr(StoredImage, "decode", lambda self, by=1: (asked.append(by), decode(self, by))[1])
    images = [image for image, _, _ in four(tmp_path)]
    pixels = drawn((64, 64), 3, images, [scaling(0.1, 0.1, (100.0, 0.0))] * 4)
    assert not pixels.any()
    assert asked == []
    drawn((640, 640), 3, images[:1] * 4, [scaling(scale, scale) for scale in (0.16, 0.33, 0.67, 1.0)])
    assert asked == [8, 4, 1, 1], "at 4/3 of the size that is needed or more is decoded what is needed"


@pytest.mark.parametrize("height", [1, 3, 33])
def test_images_of_any_shape_are_placed(height: int) -> None:
    image = StoredImage.of_pixels(np.full((height, 5000, 3), 200, np.uint8))
    plan = MosaicPlan((0, 0, 0), 0.0, (0.1, 0.1), 1.5)
    mosaic, boxes, _ = plan.laid_out([(image, NONE, np.zeros(0, np.int64))] * 4, (64, 64))
    pixels, _ = whole(mosaic, boxes, (64, 64))
    assert 199 <= pixels.max() <= 201


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mosaic(p=2), r"transforms\.mosaic\.p is 2"),
        (
            lambda: Mosaic(scale=(0, 1)),
            r"transforms\.mosaic\.scale is \[0, 1\]: give two ascending numbers at least 0\.01",
        ),
        (lambda: Mosaic(max_degrees=-1), r"transforms\.mosaic\.max_degrees is -1: give a number from 0 to 180"),
        (lambda: Mosaic(max_shift=2), r"transforms\.mosaic\.max_shift is 2"),
        (lambda: TrainingPipeline({"mine": Mosaic()}), r"transforms\.mine is a Mosaic: call it mosaic"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
