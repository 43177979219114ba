"""From an image and its boxes to a training sample."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.augment.geometric import GeometricTransform, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.mixup import MixUp
from rtdetrv2_train.data.augment.mosaic import Mosaic, MosaicImage
from rtdetrv2_train.data.augment.photometric import Distortion, PhotometricDistortion
from rtdetrv2_train.data.augment.schedule import MIXUP, MOSAIC
from rtdetrv2_train.data.augment.window import BoxArray, Window, without_small
from rtdetrv2_train.data.images.decode import ImageArray, StoredImage
from rtdetrv2_train.data.images.reading import RGB
from rtdetrv2_train.data.images.resize import fitted_size, padded
from rtdetrv2_train.errors import SampleError, UserError

if TYPE_CHECKING:
    import albumentations as A

logger = logging.getLogger(__name__)

Transform: TypeAlias = Union[GeometricTransform, PhotometricDistortion, Mosaic, MixUp, "A.BasicTransform"]
OfOneImage: TypeAlias = Union[GeometricTransform, PhotometricDistortion, "A.BasicTransform"]

_LEFT_OF_BOX = 1e-3  # pixels; of a box outside of what a transform shows Albumentations keeps an edge without width


class TrainingPipeline:
    """Named augmentations in their order, then the resize to the batch's size.

    The project's own augmentations only decide what is to be done; pixels are resampled once, at the end. A transform
    of Albumentations needs pixels earlier: they are then rendered at the image's own scale.

    A mosaic comes as an image and takes no zoom-out and no IoU crop. It and MixUp need further images, so that others
    make them: the dataset and the batch.

    Args:
        transforms: augmentations by name; None stands for one that was switched off.
        letterbox: whether what the augmentations leave keeps its aspect ratio, with a black margin at the right or
            below; else it is stretched to the batch's size.
        channels: of the images.

    Raises:
        UserError: if something else is among the transforms, or one is for images of other channels.

    Attributes:
        transforms: those of one image, by name.
        mosaic: how images are joined, or None.
        mixup: how the images of a batch are blended, or None.
    """

    def __init__(
        self, transforms: Mapping[str, Transform | None], letterbox: bool = False, channels: int = RGB
    ) -> None:
        self.letterbox = letterbox
        self.mosaic: Mosaic | None = None
        self.mixup: MixUp | None = None
        self.transforms: dict[str, OfOneImage] = {}
        for name, transform in transforms.items():
            if isinstance(transform, Mosaic | MixUp):
                self._take_joining(name, transform)
            elif transform is not None:
                self.transforms[name] = transform
        for name, transform in self.transforms.items():
            if not isinstance(transform, GeometricTransform | PhotometricDistortion) and not _is_foreign(transform):
                raise UserError(
                    f"augment.transforms.{name} is a {type(transform).__name__}: give a transform of Albumentations "
                    "or of rtdetrv2_train.data"
                )
            if isinstance(transform, ZoomOut) and len(transform.fill) not in (1, channels):
                raise UserError(
                    f"augment.transforms.{name}.fill is {list(transform.fill)} and data.channels is {channels}: give "
                    "one value, or one for each channel"
                )
            if isinstance(transform, PhotometricDistortion) and channels != RGB:
                logger.info(
                    "augment.transforms.%s changes brightness and contrast only: hue, saturation and the order of "
                    "channels are those of 3, and data.channels is %d",
                    name,
                    channels,
                )
        self._composed: dict[str, A.Compose] = {}

    def __call__(
        self,
        image: StoredImage | MosaicImage,
        boxes: NDArray[np.floating[Any]],
        labels: NDArray[np.int64],
        size: tuple[int, int],
        active: Sequence[str],
        seed: Sequence[int],
    ) -> tuple[ImageArray, NDArray[np.float32], NDArray[np.int64]]:
        """Augment and resize; equal seeds give equal bits.

        Args:
            image: as stored, or several of them as a mosaic.
            boxes: ``[n, 4]``, xyxy pixels, within the image and not empty.
            labels: ``[n]``.
            size: (height, width) of the result.
            active: names of the augmentations to use.
            seed: whole numbers from 0, which everything random depends on.

        Returns:
            The image ``[height, width, C]``, and the remaining boxes as normalised xyxy with their labels.

        Raises:
            SampleError: if a transform of Albumentations fails, or gives something else than bytes of as many channels.
            UnreadableImageError: if an image is damaged.
        """
        generator = np.random.default_rng(list(seed))
        sample = _Unfinished(image, np.column_stack([boxes, labels]).astype(np.float64).reshape(-1, 5))
        for name, transform in self.transforms.items():
            if name not in active or (isinstance(image, MosaicImage) and isinstance(transform, ZoomOut | IoUCrop)):
                continue
            if isinstance(transform, PhotometricDistortion):
                sample.distort(transform.draw(generator))
            elif isinstance(transform, GeometricTransform):
                sample.keep_fills_apart(transform)
                sample.window, sample.rows = transform(sample.window, sample.rows, generator)
            else:
                pixels = sample.make_pixels()
                pixels, rows = self._through_albumentations(name, transform, pixels, sample.rows, generator)
                sample.start_from(StoredImage.of_pixels(pixels), rows)
        pixels, rows = sample.finish(size, self.letterbox)
        rows = rows / _row_scale(*size)
        return pixels, rows[:, :4].astype(np.float32), rows[:, 4].astype(np.int64)

    def _take_joining(self, name: str, transform: Mosaic | MixUp) -> None:
        """Keep what joins images, under the name by which the schedule knows it."""
        known = MOSAIC if isinstance(transform, Mosaic) else MIXUP
        if name != known:
            raise UserError(f"augment.transforms.{name} is a {type(transform).__name__}: call it {known}")
        if isinstance(transform, Mosaic):
            self.mosaic = transform
        else:
            self.mixup = transform

    def _through_albumentations(
        self, name: str, transform: A.BasicTransform, image: ImageArray, rows: BoxArray, generator: np.random.Generator
    ) -> tuple[ImageArray, BoxArray]:
        import albumentations as A

        if name not in self._composed:
            self._composed[name] = A.Compose(
                # The last one does nothing, but without it Compose warns where no other transform moves boxes.
                [transform, A.NoOp(p=1.0)],
                # Boxes are cut to the image, and dropped here only where nothing is left of them; small ones go at the
                # end. A check after each transform would drop some.
                bbox_params=A.BboxParams(
                    format="albumentations",
                    label_fields=None,
                    check_each_transform=False,
                    min_width=_LEFT_OF_BOX,
                    min_height=_LEFT_OF_BOX,
                ),
            )
        compose = self._composed[name]
        # Not set_random_seed: that gives every transform the same seed, and so the same draw decides them all.
        compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        called = f"augment.transforms.{name} ({type(transform).__name__})"
        try:
            result: dict[str, Any] = compose(image=image, bboxes=rows / _row_scale(*image.shape[:2]))
        except Exception as error:
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            raise SampleError(f"{called} fails on an image of {size}: {' '.join(str(error).split())}") from error
        pixels = result["image"]
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != image.shape[2:]:
            kind = "RGB" if image.shape[2] == RGB else f"[H, W, {image.shape[2]}]"
            raise SampleError(
                f"{called} gives {pixels.dtype} of shape {list(pixels.shape)} instead of {kind} bytes: leave it out, "
                "as the model takes bytes and scales them itself"
            )
        # Albumentations gives up the column of labels where no box is left.
        left = result["bboxes"] if len(result["bboxes"]) else np.zeros((0, 5))
        return pixels, left * _row_scale(*pixels.shape[:2])


def _is_foreign(transform: object) -> bool:
    """Whether this is a transform of Albumentations, which takes a second to import and which few runs use."""
    import albumentations as A

    return isinstance(transform, A.BasicTransform)


class _Unfinished:
    """A sample whose pixels are still those of the file, with what is to be done to them.

    Args:
        image: as stored, or a mosaic.
        rows: ``[n, 5]``, boxes as xyxy in pixels of the image, and labels.
    """

    def __init__(self, image: StoredImage | MosaicImage, rows: BoxArray) -> None:
        self.start_from(image, rows)

    def start_from(self, image: StoredImage | MosaicImage, rows: BoxArray) -> None:
        """Nothing is to be done to these yet."""
        self.image = image
        self.rows = rows
        self.window = Window.whole(image.height, image.width)
        self.distortion: Distortion | None = None

    def distort(self, distortion: Distortion) -> None:
        """Remember to change colours; what was to be done to the pixels before is done now, for they depend on it."""
        if self.distortion is not None or self.window.frame != (0, 0, self.image.width, self.image.height):
            self.make_pixels()
        self.distortion = distortion

    def keep_fills_apart(self, transform: GeometricTransform) -> None:
        """A second canvas of another colour needs the first one as pixels."""
        if isinstance(transform, ZoomOut) and self.window.fill not in (None, transform.fill):
            self.make_pixels()

    def make_pixels(self) -> ImageArray:
        """Do what is to be done so far, at the image's own scale."""
        pixels, rows = self._rendered(self.rows, (self.window.height, self.window.width))
        self.start_from(StoredImage.of_pixels(pixels), rows)
        return pixels

    def finish(self, size: tuple[int, int], letterbox: bool) -> tuple[ImageArray, BoxArray]:
        """Pixels of the final size ``(height, width)``, and boxes in them, without those that are too small."""
        filled = fitted_size(self.window.height, self.window.width, size) if letterbox else size
        pixels, rows = self._rendered(without_small(self.rows), filled)
        return padded(pixels, size), without_small(rows)

    def _rendered(self, rows: BoxArray, size: tuple[int, int]) -> tuple[ImageArray, BoxArray]:
        if isinstance(self.image, MosaicImage):
            pixels, boxes = self.image.render(self.window, rows[:, :4], size, self.distortion)
        else:
            pixels, boxes = self.window.render(self.image, rows[:, :4], size, self.distortion)
        return pixels, np.column_stack([boxes, rows[:, 4]])


def _row_scale(height: int, width: int) -> NDArray[np.float64]:
    return np.array([width, height, width, height, 1.0])
