"""Samplers: the batches of every rank, of every epoch, as requests to the dataset.

A request carries everything that a sample depends on. Workers therefore keep no state: they may live on from epoch to
epoch, and their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.mixup import ALONE, MixUp
from rtdetrv2_train.data.augment.schedule import MIXUP, MULTISCALE, AugmentationSchedule

SIZE_BASE = 640
SIZE_STEP = 32

# Keep the random streams of shuffling, of batch sizes and of MixUp apart where their other seeds are equal.
_SHUFFLE_STREAM, _SIZE_STREAM, _MIXUP_STREAM = 1, 2, 7


class SampleRequest(NamedTuple):
    """One sample to be made.

    Attributes:
        index: number of the image in the annotations.
        epoch: from 0.
        height: of the sample, in pixels.
        width: of the sample, in pixels.
        repeat: tells apart the requests for one image in an epoch: of sets smaller than a batch, or of rare classes.
        own_share: of the sample in what the batch shows of it; below 1 it is blended with the one before it.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which no request needs
    epoch: int
    height: int
    width: int
    repeat: int = 0
    own_share: float = ALONE


class EpochSampler(Sampler[int]):
    """Indices of all images, newly shuffled in every epoch, the same on all ranks.

    Lightning announces an epoch by calling ``set_epoch`` on the ``sampler`` of a loader's batch sampler.

    Args:
        num_samples: number of images.
        seed: of the shuffling.
        shuffle: whether to shuffle at all.
        repeats: float ``[num_samples]``, how often each image is wanted in an epoch, at least 1 (see
            `repeat_factors`); None for once. Fractions are made up for over epochs, which all have the same length.
    """

    def __init__(
        self, num_samples: int, seed: int, shuffle: bool = True, repeats: NDArray[np.float64] | None = None
    ) -> None:
        self.ends = None if repeats is None else np.cumsum(repeats)
        self.length = num_samples if self.ends is None else int(self.ends[-1])
        self.num_samples = num_samples
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Announce the epoch, counted from 0, that the next iteration belongs to."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """Indices ``[length]`` in the order of the announced epoch."""
        generator = np.random.default_rng([self.seed, _SHUFFLE_STREAM, self.epoch])
        if self.ends is None:
            indices = np.arange(self.num_samples, dtype=np.int64)
        else:
            # Evenly spaced marks on a line on which every image is as long as it is wanted often.
            marks = (np.arange(self.length) + generator.random()) * (self.ends[-1] / self.length)
            indices = np.searchsorted(self.ends, marks, side="right").clip(0, self.num_samples - 1)
        return generator.permutation(indices) if self.shuffle else indices

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.length


def repeat_factors(annotations: AnnotationTable, threshold: float) -> NDArray[np.float64]:
    """How often each image is to be seen in an epoch, so that rare classes are seen more often.

    A class in a share f of the images asks for ``sqrt(threshold / f)`` times, at least once; an image follows the
    rarest of its classes (LVIS, Gupta et al., arXiv 1908.03195, appendix B.2).

    Args:
        annotations: I images.
        threshold: classes in a smaller share of the images count as rare.

    Returns:
        ``[I]``, at least 1.
    """
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    pairs = np.unique(np.stack([images, annotations.labels]), axis=1)
    shares = np.bincount(pairs[1], minlength=annotations.num_classes) / len(annotations)
    wanted = np.sqrt(threshold / np.maximum(shares, 1 / len(annotations))).clip(1)
    factors = np.ones(len(annotations))
    np.maximum.at(factors, pairs[0], wanted[pairs[1]])
    return factors


class TrainBatchSampler(Sampler[list[SampleRequest]]):
    """Training batches of one rank.

    The images and the size of optimizer step k, over all ranks and all accumulated batches, depend on the total batch
    only. Two ranks with batches of 8 see what one rank with batches of 16 sees, and so does one that accumulates
    two batches of 8. Every rank has the same number of full batches. A set smaller than one total batch gives a single
    step, which repeats the set until the batch is full; so does the last step without ``drop_last``. MixUp is drawn for
    each batch, so that with it the batch size matters, but not which rank has the batch.

    Args:
        num_samples: number of images, at least 1.
        batch_size: images of one batch of one rank.
        seed: of shuffling and of batch sizes.
        image_size: (height, width) of a batch, in pixels.
        scales: sizes that a batch is drawn from while ``multiscale`` is active, for images of 640; other image sizes
            are scaled in proportion, to multiples of 32. A size may be repeated to make it more likely. None or
            empty: always ``image_size``.
        schedule: says when ``multiscale`` and ``mixup`` are active.
        rank: of this process.
        world_size: number of ranks.
        batches_per_step: batches of a rank that are accumulated for one optimizer step.
        shuffle: whether to shuffle.
        drop_last: whether to leave out the images that do not fill a last batch.
        repeats: see `EpochSampler`.
        mixup: draws how the images of a batch are blended; None: never.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        image_size: tuple[int, int],
        scales: Sequence[int] | None,
        schedule: AugmentationSchedule,
        rank: int = 0,
        world_size: int = 1,
        batches_per_step: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        repeats: NDArray[np.float64] | None = None,
        mixup: MixUp | None = None,
    ) -> None:
        self.sampler = EpochSampler(num_samples, seed, shuffle, repeats)
        self.batch_size = batch_size
        self.seed = seed
        self.image_size = image_size
        self.sizes = [scaled_size(image_size, scale) for scale in scales or ()]
        self.schedule = schedule
        self.rank = rank
        self.world_size = world_size
        self.batches_per_step = batches_per_step
        self.drop_last = drop_last
        self.mixup = mixup
        self._done = (0, 0)

    def resume_at(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of an epoch: a run that was stopped in the middle of it has seen them."""
        self._done = (epoch, batches)

    def set_epoch(self, epoch: int) -> None:
        """Announce the epoch, counted from 0, that the next iteration belongs to."""
        self.sampler.set_epoch(epoch)

    def batch_image_size(self, step: int) -> tuple[int, int]:
        """(height, width) of all batches of this optimizer step of the announced epoch."""
        epoch = self.sampler.epoch
        if not self.sizes or not self.schedule.active(MULTISCALE, epoch):
            return self.image_size
        drawn = np.random.default_rng([self.seed, _SIZE_STREAM, epoch, step]).integers(len(self.sizes))
        return self.sizes[int(drawn)]

    def own_share(self, batch: int) -> float:
        """What MixUp draws for this batch of the announced epoch, counted over all ranks."""
        epoch = self.sampler.epoch
        if self.mixup is None or not self.schedule.active(MIXUP, epoch):
            return ALONE
        return self.mixup.draw(np.random.default_rng([self.seed, _MIXUP_STREAM, epoch, batch]))

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        order, epoch = self.sampler.order(), self.sampler.epoch
        seen_before = _earlier_occurrences(order)
        rounds = int(seen_before.max()) + 1
        total = self.batch_size * self.world_size
        for number in range(self._done[1] if epoch == self._done[0] else 0, len(self)):
            height, width = self.batch_image_size(number // self.batches_per_step)
            first = number * total + self.rank * self.batch_size
            own_share = self.own_share(number * self.world_size + self.rank)
            yield [
                SampleRequest(
                    int(order[place % len(order)]),
                    epoch,
                    height,
                    width,
                    place // len(order) * rounds + int(seen_before[place % len(order)]),
                    own_share,
                )
                for place in range(first, first + self.batch_size)
            ]

    def __len__(self) -> int:
        """Number of batches of an epoch, those of whole optimizer steps."""
        total = self.batch_size * self.world_size * self.batches_per_step
        full = len(self.sampler) // total
        return (max(full, 1) if self.drop_last else -(-len(self.sampler) // total)) * self.batches_per_step


class EvalBatchSampler(Sampler[list[SampleRequest]]):
    """Evaluation batches of one rank: every image exactly once over all ranks, none twice to make ranks even.

    Args:
        num_samples: number of images.
        batch_size: images of a batch; the last one of a rank may be smaller.
        image_size: (height, width) of the samples, in pixels.
        rank: of this process, which takes images rank, rank + world_size, and so on.
        world_size: number of ranks.
    """

    def __init__(
        self, num_samples: int, batch_size: int, image_size: tuple[int, int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.indices = range(rank, num_samples, world_size)
        self.batch_size = batch_size
        self.image_size = image_size

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        for batch in range(len(self)):
            first = batch * self.batch_size
            yield [SampleRequest(index, 0, *self.image_size) for index in self.indices[first : first + self.batch_size]]

    def __len__(self) -> int:
        """Number of batches of this rank; with fewer images than ranks one that is empty."""
        return max(1, -(-len(self.indices) // self.batch_size))


def scaled_size(image_size: tuple[int, int], scale: int) -> tuple[int, int]:
    """(height, width) in proportion to a size of ``scale`` where images of 640 are meant, in multiples of 32.

    ``(640, 640)`` and 480 give ``(480, 480)``; ``(320, 480)`` and 800 give ``(416, 608)``.
    """
    height, width = (max(1, _nearest_integer(side * scale, SIZE_BASE * SIZE_STEP)) * SIZE_STEP for side in image_size)
    return height, width


def _earlier_occurrences(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every place of ``order``, at how many earlier places the same index stands."""
    by_index = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[by_index], prepend=-1))
    counts = np.empty_like(order)
    counts[by_index] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return counts


def _nearest_integer(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
