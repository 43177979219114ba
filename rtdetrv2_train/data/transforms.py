"""The strong augmentations of the recipe, as Albumentations transforms.

They come from SSD (Liu et al., arXiv 1512.02325, 2.2) and follow the distributions of torchvision's
``RandomPhotometricDistort``, ``RandomZoomOut`` and ``RandomIoUCrop``, which the published models were trained with, but
work on bytes with OpenCV. Boxes are rows of normalised xyxy, followed by columns that are passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images import ImageArray, as_bytes
from rtdetrv2_train.errors import UserError

BoxArray = NDArray[np.float64]

# Weights of red, green and blue in luminance (ITU-R BT.601).
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# Bounds the search for a crop where no option leaves the image as it is; the odds of getting here otherwise are 2e-7.
_CROP_ROUNDS = 100


class PhotometricDistortion(A.ImageOnlyTransform):
    """Change brightness, contrast, saturation and hue, and swap channels, each at random.

    Args:
        brightness: range of the factor that multiplies all values.
        contrast: range of the factor on the distance from the mean grey; before or after the others by a coin.
        saturation: range of the factor on the distance from each pixel's own grey.
        hue: range of the shift, in turns of the colour circle, within [-0.5, 0.5].
        p: probability of each of the five operations, independently.

    Raises:
        UserError: if a range or the probability makes no sense.
    """

    def __init__(
        self,
        brightness: Sequence[float] = (0.875, 1.125),
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: Sequence[float] = (-0.05, 0.05),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=1.0)
        self.brightness = _checked_range("photometric.brightness", brightness, 0.0)
        self.contrast = _checked_range("photometric.contrast", contrast, 0.0)
        self.saturation = _checked_range("photometric.saturation", saturation, 0.0)
        self.hue = _checked_range("photometric.hue", hue, -0.5, 0.5)
        self.operation_p = _checked_probability("photometric.p", p)

    def get_params(self) -> dict[str, Any]:
        """Draw the factors; None for an operation that is left out."""
        random = self.random_generator
        drawn: dict[str, Any] = {}
        for name in ("brightness", "contrast", "saturation", "hue"):
            drawn[name] = random.uniform(*getattr(self, name)) if random.random() < self.operation_p else None
        drawn["contrast_first"] = random.random() < 0.5
        drawn["channels"] = random.permutation(3).tolist() if random.random() < self.operation_p else None
        return drawn

    def apply(self, img: ImageArray, *args: Any, **params: Any) -> ImageArray:
        """The distorted image, uint8 ``[H, W, 3]``."""
        contrast = params["contrast"]
        if params["brightness"] is not None:
            img = adjust_brightness(img, params["brightness"])
        if contrast is not None and params["contrast_first"]:
            img = adjust_contrast(img, contrast)
        if params["saturation"] is not None:
            img = adjust_saturation(img, params["saturation"])
        if params["hue"] is not None:
            img = adjust_hue(img, params["hue"])
        if contrast is not None and not params["contrast_first"]:
            img = adjust_contrast(img, contrast)
        if params["channels"] is not None:
            planes = cv2.split(img)
            img = as_bytes(cv2.merge([planes[channel] for channel in params["channels"]]))
        return img


class ZoomOut(A.DualTransform):
    """Put the image at a random place on a larger, plain canvas of the same aspect ratio.

    Args:
        side_range: range of the canvas's side relative to the image's, at least 1.
        fill: grey value of the canvas, or red, green and blue.
        p: probability.

    Raises:
        UserError: if an argument makes no sense.
    """

    def __init__(
        self, side_range: Sequence[float] = (1.0, 4.0), fill: float | Sequence[float] = 0, p: float = 0.5
    ) -> None:
        super().__init__(p=_checked_probability("zoom_out.p", p))
        self.side_range = _checked_range("zoom_out.side_range", side_range, 1.0)
        self.canvas_fill = np.broadcast_to(np.asarray(fill, dtype=np.uint8), 3)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the canvas's (height, width) and the image's (top, left) on it, in pixels."""
        height, width = params["shape"][:2]
        ratio = self.random_generator.uniform(*self.side_range)
        canvas = int(height * ratio), int(width * ratio)
        left_share, top_share = self.random_generator.random(2)
        place = int((canvas[0] - height) * top_share), int((canvas[1] - width) * left_share)
        return {"canvas": canvas, "place": place}

    def apply(self, img: ImageArray, *args: Any, **params: Any) -> ImageArray:
        """The canvas with the image on it."""
        (height, width), (top, left) = params["canvas"], params["place"]
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        if self.canvas_fill.any():
            canvas[:] = self.canvas_fill
        canvas[top : top + img.shape[0], left : left + img.shape[1]] = img
        return canvas

    def apply_to_bboxes(self, bboxes: BoxArray, *args: Any, **params: Any) -> BoxArray:
        """Boxes on the canvas."""
        (height, width), (top, left) = params["canvas"], params["place"]
        rows, columns = params["shape"][:2]
        moved = bboxes.copy()
        moved[:, [0, 2]] = (moved[:, [0, 2]] * columns + left) / width
        moved[:, [1, 3]] = (moved[:, [1, 3]] * rows + top) / height
        return moved


class IoUCrop(A.DualTransform):
    """Crop a random part of the image that at least one box agrees with to a randomly chosen degree.

    Kept are the boxes whose centre lies in the crop, clipped to it. An image without boxes stays as it is.

    Args:
        min_scale: smallest side of the crop relative to the image's.
        max_scale: largest side.
        min_aspect_ratio: smallest width by height of the crop.
        max_aspect_ratio: largest.
        sampler_options: one is drawn for each try, the least IoU between the crop and a box; 1 or more: no crop.
        trials: crops tried before another option is drawn.
        p: probability.

    Raises:
        UserError: if an argument makes no sense.
    """

    def __init__(
        self,
        min_scale: float = 0.3,
        max_scale: float = 1.0,
        min_aspect_ratio: float = 0.5,
        max_aspect_ratio: float = 2.0,
        sampler_options: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        trials: int = 40,
        p: float = 0.8,
    ) -> None:
        super().__init__(p=_checked_probability("iou_crop.p", p))
        self.scale = _checked_range("iou_crop.min_scale and max_scale", (min_scale, max_scale), 0.0, 1.0)
        aspect_ratio = (min_aspect_ratio, max_aspect_ratio)
        self.aspect_ratio = _checked_range("iou_crop.min_aspect_ratio and max_aspect_ratio", aspect_ratio, 0.0)
        if not sampler_options:
            raise UserError("augment.transforms.iou_crop.sampler_options is empty: give least overlaps, such as [0, 1]")
        self.sampler_options = tuple(sampler_options)
        self.trials = trials

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the crop, (left, top, right, bottom) in pixels, and which boxes ``[N]`` it keeps."""
        height, width = params["shape"][:2]
        boxes = data["bboxes"][:, :4] * np.array([width, height, width, height])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        everything = {"crop": None, "kept": None}
        if not len(boxes):
            return everything
        for _ in range(_CROP_ROUNDS):
            least_overlap = self.sampler_options[self.random_generator.integers(len(self.sampler_options))]
            if least_overlap >= 1:
                return everything
            crops = self._crops(height, width)
            inside = ((crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])).all(axis=2)
            best = np.where(inside, _pairwise_iou(crops, boxes), -1.0).max(axis=1, initial=-1.0)
            good = np.flatnonzero(best >= least_overlap)
            if len(good):
                return {"crop": crops[good[0]].tolist(), "kept": inside[good[0]]}
        return everything

    def apply(self, img: ImageArray, *args: Any, **params: Any) -> ImageArray:
        """The cropped image."""
        if params["crop"] is None:
            return img
        left, top, right, bottom = params["crop"]
        return img[top:bottom, left:right]

    def apply_to_bboxes(self, bboxes: BoxArray, *args: Any, **params: Any) -> BoxArray:
        """The kept boxes, relative to the crop."""
        if params["crop"] is None:
            return bboxes
        left, top, right, bottom = params["crop"]
        rows, columns = params["shape"][:2]
        kept = bboxes[params["kept"]].copy()
        kept[:, [0, 2]] = ((kept[:, [0, 2]] * columns - left) / (right - left)).clip(0, 1)
        kept[:, [1, 3]] = ((kept[:, [1, 3]] * rows - top) / (bottom - top)).clip(0, 1)
        return kept

    def _crops(self, height: int, width: int) -> NDArray[np.int64]:
        """Crops ``[T, 4]`` (left, top, right, bottom) of allowed shape, from ``trials`` tries at once."""
        sides = (self.random_generator.uniform(*self.scale, (self.trials, 2)) * (width, height)).astype(np.int64)
        places = (self.random_generator.random((self.trials, 2)) * ((width, height) - sides)).astype(np.int64)
        crops = np.concatenate([places, places + sides], axis=1)[(sides > 0).all(axis=1)]
        ratio = (crops[:, 2] - crops[:, 0]) / (crops[:, 3] - crops[:, 1])
        return crops[(self.aspect_ratio[0] <= ratio) & (ratio <= self.aspect_ratio[1])]


def adjust_brightness(image: ImageArray, factor: float) -> ImageArray:
    """All values times ``factor``, cut to bytes."""
    return as_bytes(cv2.LUT(image, _table(np.arange(256) * factor)))


def adjust_contrast(image: ImageArray, factor: float) -> ImageArray:
    """Distances from the image's mean grey times ``factor``."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return as_bytes(cv2.LUT(image, _table(np.arange(256) * factor + mean * (1 - factor))))


def adjust_saturation(image: ImageArray, factor: float) -> ImageArray:
    """Distances from each pixel's own grey times ``factor``."""
    # The last column makes OpenCV's rounding the truncation that the reference's operators do; it is not quite a half
    # because halves would be rounded to even numbers.
    matrix = np.column_stack([factor * np.eye(3) + (1 - factor) * _LUMINANCE, np.full(3, -0.49)])
    return as_bytes(cv2.transform(image, matrix))


def adjust_hue(image: ImageArray, shift: float) -> ImageArray:
    """Hue turned by ``shift`` of a full circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)
    return as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _table(values: NDArray[Any]) -> ImageArray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _pairwise_iou(crops: NDArray[np.int64], boxes: BoxArray) -> NDArray[np.float64]:
    """IoU ``[T, N]`` of crops ``[T, 4]`` and boxes ``[N, 4]``, both xyxy in pixels."""
    low = np.maximum(crops[:, None, :2], boxes[:, :2])
    high = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = (crops[:, 2:] - crops[:, :2]).prod(axis=1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (areas - shared)


def _checked_range(name: str, values: Sequence[float], lowest: float, highest: float = np.inf) -> tuple[float, float]:
    if len(values) != 2 or not lowest <= values[0] <= values[1] <= highest:
        limits = f"at least {lowest:g}" if highest == np.inf else f"from {lowest:g} to {highest:g}"
        raise UserError(f"augment.transforms.{name} is {list(values)}: give two ascending numbers {limits}")
    return float(values[0]), float(values[1])


def _checked_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"augment.transforms.{name} is {value}: give a probability from 0 to 1")
    return value
