"""Which image goes where: the batches of every rank, of every epoch, as requests to the dataset.

A request carries everything that a sample depends on. Workers therefore keep no state: they may live on from epoch to
epoch, and their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rtdetrv2_train.data.schedule import MULTISCALE, AugmentationSchedule

SIZE_BASE = 640
SIZE_STEP = 32

# Keep the random streams of shuffling and of batch sizes apart where their other seeds are equal.
_SHUFFLE_STREAM, _SIZE_STREAM = 1, 2


class SampleRequest(NamedTuple):
    """One sample to be made.

    Attributes:
        index: number of the image in the annotations.
        epoch: from 0.
        height: of the sample, in pixels.
        width: of the sample, in pixels.
        repeat: how often the image was already asked for in this epoch, in sets smaller than a batch.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a request
    epoch: int
    height: int
    width: int
    repeat: int = 0


class EpochSampler(Sampler[int]):
    """Indices of all images, newly shuffled in every epoch, the same on all ranks.

    Lightning announces an epoch by calling ``set_epoch`` on the ``sampler`` of a loader's batch sampler.

    Args:
        num_samples: number of images.
        seed: of the shuffling.
        shuffle: whether to shuffle at all.
    """

    def __init__(self, num_samples: int, seed: int, shuffle: bool = True) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Announce the epoch, counted from 0, that the next iteration belongs to."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """Indices ``[num_samples]`` in the order of the announced epoch."""
        if not self.shuffle:
            return np.arange(self.num_samples, dtype=np.int64)
        return np.random.default_rng([self.seed, _SHUFFLE_STREAM, self.epoch]).permutation(self.num_samples)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.num_samples


class TrainBatchSampler(Sampler[list[SampleRequest]]):
    """Training batches of one rank.

    The images of step k, over all ranks, depend on the total batch only: two processes with batches of 8 see what
    one process with batches of 16 sees. Every rank has the same number of full batches. A set smaller than one total
    batch gives a single step, which begins the set anew until the batch is full; so does the last step without
    ``drop_last``.

    Args:
        num_samples: number of images, at least 1.
        batch_size: images of one batch of one rank.
        seed: of shuffling and of batch sizes.
        image_size: (height, width) of a batch, in pixels.
        scales: sizes that a batch is drawn from while ``multiscale`` is active, for images of 640; other image sizes
            are scaled in proportion, to multiples of 32. A size may be repeated to make it more likely. None or
            empty: always ``image_size``.
        schedule: says when ``multiscale`` is active.
        rank: number of this process.
        world_size: number of processes.
        shuffle: whether to shuffle.
        drop_last: whether to leave out the images that do not fill a last batch.
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
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        self.sampler = EpochSampler(num_samples, seed, shuffle)
        self.batch_size = batch_size
        self.seed = seed
        self.image_size = image_size
        self.sizes = [scaled_size(image_size, scale) for scale in scales or ()]
        self.schedule = schedule
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self._done = (0, 0)

    def resume_at(self, epoch: int, steps: int) -> None:
        """Leave out the first batches of an epoch: a run that was stopped in the middle of it has seen them."""
        self._done = (epoch, steps)

    def set_epoch(self, epoch: int) -> None:
        """Announce the epoch, counted from 0, that the next iteration belongs to."""
        self.sampler.set_epoch(epoch)

    def batch_image_size(self, step: int) -> tuple[int, int]:
        """(height, width) of the batches of this step of the announced epoch, the same on all ranks."""
        epoch = self.sampler.epoch
        if not self.sizes or not self.schedule.active(MULTISCALE, epoch):
            return self.image_size
        drawn = np.random.default_rng([self.seed, _SIZE_STREAM, epoch, step]).integers(len(self.sizes))
        return self.sizes[int(drawn)]

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        order, epoch = self.sampler.order(), self.sampler.epoch
        total = self.batch_size * self.world_size
        for step in range(self._done[1] if epoch == self._done[0] else 0, len(self)):
            height, width = self.batch_image_size(step)
            first = step * total + self.rank * self.batch_size
            yield [
                SampleRequest(int(order[place % len(order)]), epoch, height, width, place // len(order))
                for place in range(first, first + self.batch_size)
            ]

    def __len__(self) -> int:
        """Number of steps of an epoch."""
        total = self.batch_size * self.world_size
        full = self.sampler.num_samples // total
        return max(full, 1) if self.drop_last else -(-self.sampler.num_samples // total)


class EvalBatchSampler(Sampler[list[SampleRequest]]):
    """Evaluation batches of one rank: every image exactly once over all ranks, none twice to make ranks even.

    Args:
        num_samples: number of images.
        batch_size: images of a batch; the last one of a rank may be smaller.
        image_size: (height, width) of the samples, in pixels.
        rank: number of this process, which takes images rank, rank + world_size, and so on.
        world_size: number of processes.
    """

    def __init__(
        self, num_samples: int, batch_size: int, image_size: tuple[int, int], rank: int = 0, world_size: int = 1
    ) -> None:
        self.indices = range(rank, num_samples, world_size)
        self.batch_size = batch_size
        self.image_size = image_size

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield [SampleRequest(index, 0, *self.image_size) for index in self.indices[first : first + self.batch_size]]

    def __len__(self) -> int:
        """Number of batches of this rank."""
        return -(-len(self.indices) // self.batch_size)


def scaled_size(image_size: tuple[int, int], scale: int) -> tuple[int, int]:
    """(height, width) in proportion to a size of ``scale`` where images of 640 are meant, in multiples of 32.

    ``(640, 640)`` and 480 give ``(480, 480)``; ``(320, 480)`` and 800 give ``(416, 608)``.
    """
    height, width = (max(1, _nearest_integer(side * scale, SIZE_BASE * SIZE_STEP)) * SIZE_STEP for side in image_size)
    return height, width


def _nearest_integer(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
