"""A data set as Lightning loads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from rtdetrv2_train.classes import Classes
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline, Transform
from rtdetrv2_train.data.augment.schedule import MULTISCALE, AugmentationSchedule, Phases
from rtdetrv2_train.data.augment.window import MIN_BOX_SIDE
from rtdetrv2_train.data.images.cache import ImageCache, cache_file
from rtdetrv2_train.data.images.reading import MOST_CHANNELS, RGB, Exif, PixelRange, Reading
from rtdetrv2_train.data.inspection.conventions import other_convention
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.loader import BATCHES_AHEAD, BatchLoader, automatic_workers
from rtdetrv2_train.data.loading.samplers import (
    SIZE_STEP,
    EvalBatchSampler,
    TrainBatchSampler,
    repeat_factors,
    scaled_size,
)
from rtdetrv2_train.data.loading.step_totals import OptimizerSteps
from rtdetrv2_train.data.paths import PartConfig, checked_part
from rtdetrv2_train.data.reading import SetReader
from rtdetrv2_train.errors import UserError, check_number
from rtdetrv2_train.files import cache_folder
from rtdetrv2_train.system.resources import available_shared_memory

logger = logging.getLogger(__name__)


class CocoDataModule(LightningDataModule):
    """Training and validation batches of a data set in any known format, measured as COCO is.

    Batches are made for the rank that asks, so the trainer must leave the samplers alone
    (``use_distributed_sampler=False``).

    Args:
        root: folder that the other paths are relative to.
        train: what to train on (see `SetReader`).
        val: what to evaluate on; None: a tenth of the images of ``train``, which are not trained on.
        image_size: (height, width) of samples, multiples of 32.
        multiscale: sizes that each training batch's size is drawn from, for images of 640 (see `TrainBatchSampler`);
            None or empty for ``image_size`` always.
        letterbox: whether images keep their aspect ratio, with a black margin at the right or below; else they are
            stretched.
        transforms: augmentations by name, in their order; None stands for one that is switched off.
        schedule: epochs in which augmentations are active (see `AugmentationSchedule`).
        reference_epochs: length of the run that the epochs of ``schedule`` are meant for.
        max_epochs: length of this run; -1 where it is given in steps.
        batch_size: training images per batch and rank.
        eval_batch_size: validation images per batch and rank.
        num_workers: workers of each loader and rank; ``auto``: all cores but the one that trains, at most 16.
        seed: of shuffling, batch sizes and augmentation.
        on_bad_image: ``raise`` or ``skip`` (see `DetectionDataset`; where labels do not give sizes, see `Source`).
        repeat_threshold: images of classes in less than this share of all images are seen more often in training (see
            `repeat_factors`); None: all equally often.
        cache: ``ram`` or ``disk``: keep decoded training images there (see `ImageCache`); None: decode them each time.
        exif: ``auto``, ``apply`` or ``ignore``: what becomes of the orientation in EXIF (see `Reading`).
        pixel_range: values of images of more than 8 bits that become 0 and 255, here and in prediction; ``auto``:
            measured on a sample of the training set; None: those of all of 16 bits (see `Reading`).
        channels: 3: images of any kind become RGB; another number, up to 16: all bands that their files have.
        format: name of the only format to look for where paths do not say it; None: all known ones.
        split_file: where the images that are held out are written down, and read again; None: nowhere.

    Raises:
        UserError: if an argument is out of range or of the wrong type.
    """

    def __init__(
        self,
        root: str | Path,
        train: PartConfig = None,
        val: PartConfig = None,
        *,
        image_size: Sequence[int],
        transforms: Mapping[str, Transform | None],
        schedule: Phases,
        reference_epochs: int,
        max_epochs: int,
        batch_size: int,
        eval_batch_size: int,
        multiscale: Sequence[int] | None = None,
        num_workers: int | Literal["auto"] = "auto",
        seed: int = 0,
        on_bad_image: Literal["raise", "skip"] = "raise",
        repeat_threshold: float | None = None,
        cache: Literal["ram", "disk"] | None = None,
        letterbox: bool = False,
        exif: Exif = "auto",
        pixel_range: Sequence[float] | Literal["auto"] | None = "auto",
        channels: int = RGB,
        format: str | None = None,
        split_file: Path | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.image_size = _checked_size(image_size)
        self.multiscale = [_whole("multiscale", scale, SIZE_STEP) for scale in multiscale or ()]
        if not isinstance(letterbox, bool):
            raise UserError(f"data.letterbox is {letterbox!r}: give true or false")
        self.letterbox = letterbox
        check_number("data.channels", channels, 1, MOST_CHANNELS)
        self.channels = channels
        self.pipeline = TrainingPipeline(transforms, letterbox, channels)
        taking_part = [name for name, transform in transforms.items() if transform is not None]
        whole = AugmentationSchedule(schedule, reference_epochs, max_epochs, known_names=tuple(transforms))
        self.schedule = whole.of([*taking_part, *([MULTISCALE] if self.multiscale else [])])
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.eval_batch_size = _whole("eval_batch_size", eval_batch_size, 1)
        self.num_workers = num_workers if num_workers == "auto" else _whole("num_workers", num_workers, 0)
        self.seed = _whole("seed", seed, 0)
        if on_bad_image not in ("raise", "skip"):
            raise UserError(f"data.on_bad_image is '{on_bad_image}': give 'raise' or 'skip'")
        self.on_bad_image = on_bad_image
        if repeat_threshold is not None and not 0 < repeat_threshold <= 1:
            raise UserError(f"data.repeat_threshold is {repeat_threshold}: give a share above 0 and up to 1, or null")
        self.repeat_threshold = repeat_threshold
        if cache not in ("ram", "disk", None):
            raise UserError(f"data.cache is '{cache}': give 'ram', 'disk' or null")
        self.cache = cache
        if exif not in get_args(Exif):
            raise UserError(f"data.exif is '{exif}': give 'auto', 'apply' or 'ignore'")
        given = None if pixel_range in ("auto", None) else _checked_pixel_range(pixel_range)
        self._reader = SetReader(
            self.root,
            checked_part("train", train),
            checked_part("val", val),
            format,
            Reading(exif, given, channels=channels),
            measures_range=pixel_range == "auto",
            may_lack_images=on_bad_image == "skip",
            split_file=split_file,
        )
        self._datasets: list[DetectionDataset] = []
        self._done = (0, 0)  # epoch, and batches of it, that a resumed run has seen
        self._is_for_evaluation = False
        self._train_annotations: AnnotationTable | None = None
        self._val_annotations: AnnotationTable | None = None

    def prepare_data(self) -> None:
        """Check that the files are where they should be.

        Raises:
            UserError: if one is not; the message names it.
        """
        self._reader.check()

    def leave_out_training_set(self) -> None:
        """Use no training set: classes are those of the validation set. Call it before anything is read."""
        self._is_for_evaluation = True

    @property
    def pixel_range(self) -> PixelRange | None:
        """Values of images of more than 8 bits that become 0 and 255; measured when the first part is read."""
        return self._reader.reading.pixel_range

    def take_classes(self, classes: Classes) -> None:
        """Let the classes be those of a model, where there is no training set."""
        self._train_annotations = self._val_annotations = self.val_annotations.relabelled(classes)
        self._warn_if_nothing_to_measure()

    def load(self) -> None:
        """Read the annotations, unless that has been done. Needs no trainer.

        Raises:
            UserError: if a file is missing or cannot be understood, or the two parts have no class in common.
        """
        if self._train_annotations is not None:
            return
        self.prepare_data()
        if self._is_for_evaluation:
            self._train_annotations = self._val_annotations = self._reader.validation()
        else:
            self._train_annotations, self._val_annotations = self._reader.both()
            self._warn_if_nothing_to_measure()

    def parts(self) -> dict[str, AnnotationTable]:
        """What is trained on and, where it is a part of its own, what is evaluated on, each with its own classes.

        Raises:
            UserError: as `load` does.
        """
        self.prepare_data()
        return self._reader.parts()

    def further_parts(self) -> list[AnnotationTable]:
        """Parts of the set that are used for neither, as far as they can be read."""
        return self._reader.further()

    def setup(self, stage: str | None = None) -> None:
        """Read the annotations, unless that has been done."""
        self.load()

    @property
    def train_annotations(self) -> AnnotationTable:
        """Images and boxes to train on."""
        self.load()
        assert self._train_annotations is not None
        return self._train_annotations

    @property
    def val_annotations(self) -> AnnotationTable:
        """Images and boxes to evaluate on, with the labels of those to train on."""
        self.load()
        assert self._val_annotations is not None
        return self._val_annotations

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of every label."""
        return self.train_annotations.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The annotation files' category id of every label."""
        return self.train_annotations.category_ids

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.train_annotations.num_classes

    def train_dataloader(self) -> BatchLoader:
        """Batches to train on, for the rank of the trainer that this is attached to."""
        annotations = self.train_annotations
        if not (annotations.boxes[:, 2:] - annotations.boxes[:, :2] >= MIN_BOX_SIDE).all(axis=1).any():
            way_out = other_convention(annotations) or "annotate some objects first"
            raise UserError(f"'{annotations.annotation_file}' has no box to train on: {way_out}")
        rank, world_size = self._rank()
        accumulated = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        batches = TrainBatchSampler(
            len(annotations),
            self.batch_size,
            self.seed,
            self.image_size,
            self.multiscale,
            self.schedule,
            rank,
            world_size,
            accumulated,
            repeats=None if self.repeat_threshold is None else repeat_factors(annotations, self.repeat_threshold),
            mixup=self.pipeline.mixup,
        )
        batches.resume_at(*self._done)
        cache = self._image_cache(annotations)
        dataset = DetectionDataset(annotations, self.pipeline, self.schedule, self.seed, self.on_bad_image, cache)
        timeout = None if self.trainer is None else getattr(self.trainer.strategy, "_timeout", None)
        return self._loader(dataset, batches, OptimizerSteps(accumulated, world_size, timeout))

    def val_dataloader(self) -> BatchLoader:
        """Batches to evaluate on, for the rank of the trainer that this is attached to."""
        annotations = self.val_annotations
        rank, world_size = self._rank()
        batches = EvalBatchSampler(len(annotations), self.eval_batch_size, self.image_size, rank, world_size)
        dataset = DetectionDataset(
            annotations, seed=self.seed, on_bad_image=self.on_bad_image, letterbox=self.letterbox
        )
        return self._loader(dataset, batches)

    def teardown(self, stage: str | None = None) -> None:
        """Log how many images could not be read and were skipped, and how many are not of the annotated size."""
        bad = {path for dataset in self._datasets for path in dataset.bad_images}
        if bad:
            logger.warning("%d images could not be read and were skipped; the log above names them", len(bad))
        resized = sorted({path for dataset in self._datasets for path in dataset.resized_images})
        if resized:
            logger.warning(
                "%d images are of another size than annotated, the first is '%s'; their boxes were taken as they are",
                len(resized),
                resized[0],
            )
        self._datasets.clear()

    def state_dict(self) -> dict[str, int]:
        """How far the run is: its epoch, and the batches of that epoch that were trained on."""
        if self.trainer is None:
            return {}
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {"epoch": self.trainer.current_epoch, "steps": progress.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume where the run stopped, also in the middle of an epoch."""
        self._done = (state_dict["epoch"], state_dict["steps"])

    def _warn_if_nothing_to_measure(self) -> None:
        annotations = self.val_annotations
        if not len(annotations.boxes):
            logger.warning(
                "'%s' has no box of the classes that are known: AP cannot be measured", annotations.annotation_file
            )

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _local_processes(self) -> int:
        """Ranks on this machine."""
        return 1 if self.trainer is None else self.trainer.num_devices

    def _largest_size(self) -> tuple[int, int]:
        """(height, width) that no sample exceeds."""
        sizes = [self.image_size, *(scaled_size(self.image_size, scale) for scale in self.multiscale)]
        return max(height for height, _ in sizes), max(width for _, width in sizes)

    def _image_cache(self, annotations: AnnotationTable) -> ImageCache | None:
        if self.cache is None:
            return None
        largest = self._largest_size()
        file = cache_file(annotations, largest, cache_folder()) if self.cache == "disk" else None
        return ImageCache(annotations, largest, file, self._local_processes())

    def _loader(self, dataset: DetectionDataset, batches: Any, steps: OptimizerSteps | None = None) -> BatchLoader:
        self._datasets.append(dataset)
        return BatchLoader(dataset, batches, self._workers(batches.batch_size), steps)

    def _workers(self, batch_size: int) -> int:
        """Workers of a loader, which must have the shared memory to hand over their batches."""
        processes = self._local_processes()
        wanted = automatic_workers(processes) if self.num_workers == "auto" else int(self.num_workers)
        height, width = self._largest_size()
        each = BATCHES_AHEAD * batch_size * self.channels * height * width
        free = available_shared_memory()
        if free is None or wanted * each * processes <= free:
            return wanted
        workers = free // (each * processes) if self.num_workers == "auto" else wanted
        logger.warning(
            "%d workers need up to %d MB of shared memory to hand over their batches, and %d MB are free: give it more "
            "(docker run --shm-size=8g), or they may be killed; %d are used",
            wanted * processes,
            wanted * each * processes / 1e6,
            free / 1e6,
            workers * processes,
        )
        return workers


def _checked_size(image_size: Sequence[int]) -> tuple[int, int]:
    valid = len(image_size) == 2 and all(isinstance(side, int) and side > 0 for side in image_size)
    if not valid or any(side % SIZE_STEP for side in image_size):
        raise UserError(
            f"data.image_size is {list(image_size)}: give height and width as multiples of {SIZE_STEP}, like [640, 640]"
        )
    return image_size[0], image_size[1]


def _checked_pixel_range(limits: Any) -> PixelRange:
    numbers = isinstance(limits, Sequence) and all(isinstance(v, int | float) for v in limits)
    if not numbers or len(limits) != 2 or not limits[0] < limits[1]:
        raise UserError(f"data.pixel_range is {limits!r}: give two ascending numbers, auto or null")
    return float(limits[0]), float(limits[1])


def _whole(name: str, value: Any, least: int) -> int:
    check_number(f"data.{name}", value, least)
    return int(value)
