"""Images and boxes, one request at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.mixup import ALONE
from rtdetrv2_train.data.augment.mosaic import Labelled, MosaicPlan
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import MOSAIC, AugmentationSchedule
from rtdetrv2_train.data.images.cache import ImageCache
from rtdetrv2_train.data.images.decode import ImageArray, UnreadableImageError
from rtdetrv2_train.data.images.resize import evaluation_input
from rtdetrv2_train.data.loading.samplers import SampleRequest
from rtdetrv2_train.errors import SampleError

logger = logging.getLogger(__name__)

# Keep the random streams of samples, replacements, denoising noise and mosaics apart from those of the samplers.
_SAMPLE_STREAM, _REPLACEMENT_STREAM, _NOISE_STREAM, _MOSAIC_STREAM = 3, 4, 5, 6
_REPLACEMENT_TRIES = 100


@dataclass(frozen=True)
class Sample:
    """One image with its n boxes, ready to be batched.

    Attributes:
        image: uint8 ``[H, W, C]``, RGB unless `Reading` asks for other channels.
        boxes: float32 ``[n, 4]``, xyxy, normalised to [0, 1].
        labels: int64 ``[n]``.
        image_id: of the annotation file.
        original_size: (height, width) that the image spans in pixels of the file: the file's own, or more where a
            letterbox leaves a margin; of a mosaic those of its canvas.
        noise_seed: what the noise of its denoising queries depends on, 63 bits.
        own_share: see `SampleRequest`.
    """

    image: ImageArray
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    image_id: int
    original_size: tuple[float, float]
    noise_seed: int = 0
    own_share: float = ALONE


class DetectionDataset(Dataset[Sample]):
    """Samples of a detection data set.

    A sample depends on the request, the seed and the files only, never on the worker or on earlier requests.

    Args:
        annotations: images and boxes.
        pipeline: augmentations for training; None for evaluation: only resized, with boxes as annotated.
        schedule: the epochs in which each augmentation is active; needed with a pipeline.
        seed: of all randomness, a whole number from 0.
        on_bad_image: what to do about a missing or damaged image. ``raise``: stop. ``skip``: log it once and
            use a substitute: another image in training; a black one in evaluation, so that the metrics stay those of
            the whole set.
        cache: of decoded images, for training.
        letterbox: whether images keep their aspect ratio in evaluation; in training the pipeline decides.
    """

    def __init__(
        self,
        annotations: AnnotationTable,
        pipeline: TrainingPipeline | None = None,
        schedule: AugmentationSchedule | None = None,
        seed: int = 0,
        on_bad_image: Literal["raise", "skip"] = "raise",
        cache: ImageCache | None = None,
        letterbox: bool = False,
    ) -> None:
        if pipeline is not None and schedule is None:
            raise ValueError("a pipeline needs a schedule")
        self.annotations = annotations
        self.pipeline = pipeline
        self.schedule = schedule
        self.seed = seed
        self.on_bad_image = on_bad_image
        self.cache = cache
        self.letterbox = letterbox
        # In shared memory: what a worker marks is seen by all workers and by the main process.
        self._bad = torch.zeros(len(annotations), dtype=torch.bool).share_memory_()
        self._resized = torch.zeros(len(annotations), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.annotations)

    @property
    def bad_images(self) -> list[Path]:
        """Images so far, over all workers, that could not be read."""
        return [self.annotations.path(index) for index in self._bad.nonzero().flatten().tolist()]

    @property
    def resized_images(self) -> list[Path]:
        """Images so far, over all workers, that are of another size than annotated."""
        return [self.annotations.path(index) for index in self._resized.nonzero().flatten().tolist()]

    def __getitem__(self, request: SampleRequest) -> Sample:
        """The requested sample.

        Raises:
            SampleError: if the image cannot be read and ``on_bad_image`` is ``raise``, or too many cannot.
        """
        if self.pipeline is None:
            return self._evaluation_sample(request)
        plan = self._mosaic(request)
        indices = [request.index, *(plan.others if plan else ())]
        substitutes = self._substitutes(request)
        while True:
            try:
                return self._training_sample(indices, plan, request)
            except UnreadableImageError as error:
                self._note_bad(indices[error.part], error)
                part = error.part
            substitute = next(substitutes, None)
            if substitute is None:
                raise SampleError(
                    f"{len(self.bad_images)} images of '{self.annotations.annotation_file}' cannot be read, and no "
                    f"other was found in {_REPLACEMENT_TRIES} tries: check that they lie in "
                    f"'{self.annotations.image_folder}'"
                )
            indices[part] = substitute

    def _mosaic(self, request: SampleRequest) -> MosaicPlan | None:
        """What the sample is made of, if it is a mosaic."""
        assert self.pipeline is not None
        assert self.schedule is not None
        mosaic = self.pipeline.mosaic
        if mosaic is None or not self.schedule.active(MOSAIC, request.epoch):
            return None
        return mosaic.draw(np.random.default_rng(self._seed(_MOSAIC_STREAM, request)), len(self))

    def _training_sample(self, indices: list[int], plan: MosaicPlan | None, request: SampleRequest) -> Sample:
        assert self.pipeline is not None
        assert self.schedule is not None
        images = [self._labelled(part, index) for part, index in enumerate(indices)]
        active = [name for name in self.pipeline.transforms if self.schedule.active(name, request.epoch)]
        size = (request.height, request.width)
        image, boxes, labels = images[0] if plan is None else plan.laid_out(images, size)
        pixels, boxes, labels = self.pipeline(image, boxes, labels, size, active, self._seed(_SAMPLE_STREAM, request))
        noise = np.random.SeedSequence(self._seed(_NOISE_STREAM, request))
        noise_seed = int(noise.generate_state(1, np.uint64)[0]) >> 1
        image_id = int(self.annotations.image_ids[indices[0]])
        return Sample(pixels, boxes, labels, image_id, (image.height, image.width), noise_seed, request.own_share)

    def _labelled(self, part: int, index: int) -> Labelled:
        """Image number ``index`` with its boxes, as the given part of a sample."""
        try:
            image = self.annotations.image(index) if self.cache is None else self.cache.read(index)
        except UnreadableImageError as error:
            error.part = part
            raise
        return image, *self._boxes_within(index, image.height, image.width)

    def _seed(self, stream: int, request: SampleRequest) -> list[int]:
        return [self.seed, stream, request.epoch, request.index, request.repeat]

    def _evaluation_sample(self, request: SampleRequest) -> Sample:
        index = request.index
        try:
            image = self.annotations.image(index).decode()[0]
        except UnreadableImageError as error:
            self._note_bad(index, error)
            image = np.zeros((*self.annotations.size(index), self.annotations.reading.channels), dtype=np.uint8)
        height, width = image.shape[:2]
        boxes, labels = self._boxes_within(index, height, width)
        pixels, span = evaluation_input(image, (request.height, request.width), self.letterbox)
        shares = (boxes / np.array([*span[::-1], *span[::-1]])).astype(np.float32)
        return Sample(pixels, shares, labels, int(self.annotations.image_ids[index]), span)

    def _substitutes(self, request: SampleRequest) -> Iterator[int]:
        """Images to take one by one in place of what cannot be read, in a random order that the request fixes."""
        place = (request.index, request.epoch, request.height, request.width, request.repeat)
        generator = np.random.default_rng([self.seed, _REPLACEMENT_STREAM, *place])
        yield from generator.integers(len(self), size=_REPLACEMENT_TRIES).tolist()

    def _note_bad(self, index: int, error: UnreadableImageError) -> None:
        path = self.annotations.path(index)
        if self.on_bad_image == "raise":
            raise SampleError(
                f"the image '{path}', listed in '{self.annotations.annotation_file}', cannot be read ({error}): "
                "replace or remove it, or leave such images out with data.on_bad_image=skip"
            ) from error
        if not self._bad[index]:
            self._bad[index] = True
            logger.warning("the image '%s' cannot be read (%s) and is skipped", path, error)

    def _boxes_within(self, index: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes in pixels and labels, clipped to the image as it is if that differs from what is annotated."""
        boxes, labels = self.annotations.targets(index)
        if (height, width) == self.annotations.size(index):
            return boxes, labels
        self._resized[index] = True
        clipped = boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
        kept = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        return clipped[kept], labels[kept]
