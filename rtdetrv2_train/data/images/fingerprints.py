"""Fingerprints of images, by which near-duplicates and frames of a video are found.

A fingerprint has two halves. The hash (pHash) says which of the 16 x 16 lowest frequencies of the grey picture, shrunk
to 64 x 64, are above their median. Pictures of different things differ in half of the 256 bits, and hardly ever in less
than a third; one that was saved again, halved, brightened or cut by 2 % at every side differs in a fifth at most. The
colours are the mean ones of 4 x 4 parts: they change little from frame to frame even where a camera moves.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import SHRINKS, StoredImage, UnreadableImageError

_BITS, _KEY = 256, 8  # bits of a hash; bytes at its beginning, of the 8 x 8 lowest frequencies
_SIDE, _KEPT, _LOWEST, _PARTS = 64, 16, 8, 4
_SAME = 56  # bits that may differ between near-duplicates
_NEIGHBOURS = 16  # others with the same two bytes that an image is compared with
_LEAST_CONTRAST = 3  # grey values between the brightest and the darkest pixel
_FRAMES_ALIKE = 0.5  # of the usual difference in colour between images of the set: between frames, in the median
_DRAWN = 2000  # pairs that tell the usual difference
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprint of every image of a set.

    Attributes:
        hashes: uint8 ``[I, 32]``.
        colours: uint8 ``[I, 48]``.
        usable: bool ``[I]``, whether the image could be read and is not of one colour.
    """

    hashes: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, annotations: AnnotationTable) -> Fingerprints:
        """Look at all images, with a thread for every core."""
        count = len(annotations)
        found = cls(
            np.zeros((count, _BITS // 8), dtype=np.uint8),
            np.zeros((count, _PARTS * _PARTS * 3), dtype=np.uint8),
            np.zeros(count, dtype=bool),
        )
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda index: found._take(annotations, index), range(count)):
                pass
        return found

    def near_duplicates(self) -> Iterator[tuple[int, int]]:
        """Pairs of near-duplicates; of many that are alike, enough pairs that all are connected."""
        for _, one, other in self.blocks_of_pairs():
            yield from zip(one.tolist(), other.tolist(), strict=True)

    def blocks_of_pairs(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """As `near_duplicates`, many pairs at a time; a pair may come several times.

        Candidates share two of the eight bytes of the lowest frequencies, which near-duplicates nearly always do.

        Yields:
            how many places the images of pairs are apart in an order by their hashes, from 1, where a picture that was
            saved twice comes first; and both images of each pair.
        """
        images = np.flatnonzero(self.usable)
        for pair in itertools.combinations(range(_KEY), 2):
            order = [*pair, *(byte for byte in range(_KEY) if byte not in pair)]
            keys = np.ascontiguousarray(self.hashes[images][:, order]).view(">u8").ravel().astype(np.uint64)
            places = np.argsort(keys, kind="stable")
            shared = keys[places] >> np.uint64(48)
            for step in range(1, min(_NEIGHBOURS, len(places) - 1) + 1):
                near = np.flatnonzero(shared[step:] == shared[:-step])
                one, other = images[places[near]], images[places[near + step]]
                same = self.distances(one, other) <= _SAME
                yield step, one[same], other[same]

    def distances(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bits of 256 in which the hashes of images differ, for each pair of their numbers."""
        return np.asarray(_ONES[self.hashes[one] ^ self.hashes[other]].sum(axis=-1, dtype=np.int64))

    def is_series(self, images: Sequence[int]) -> bool:
        """Whether each of these images looks much more like the one before it than images of the set usually do."""
        generator = np.random.default_rng(0)
        one, other = generator.choice(np.flatnonzero(self.usable), (2, _DRAWN))
        usual = np.median(self._colours_apart(one[one != other], other[one != other]))
        following = np.array(images)
        return bool(np.median(self._colours_apart(following[1:], following[:-1])) <= _FRAMES_ALIKE * usual)

    def _colours_apart(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        difference = self.colours[one].astype(np.float64) - self.colours[other]
        return np.asarray(np.linalg.norm(difference, axis=-1))

    def _take(self, annotations: AnnotationTable, index: int) -> None:
        """Look at an image."""
        try:
            self.hashes[index], self.colours[index], small = fingerprint(annotations.image(index))
        except UnreadableImageError:
            return
        self.usable[index] = has_contrast(small)


def fingerprint(image: StoredImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Hash ``[32]`` and colours ``[48]`` of an image, and the grey picture that it was shrunk to ``[64, 64]``.

    Raises:
        UnreadableImageError: if it is damaged.
    """
    shrink = next((shrink for shrink in SHRINKS if min(image.height, image.width) // shrink >= _SIDE), 1)
    pixels = image.decode(shrink)[0]
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    small = cv2.resize(np.ascontiguousarray(colours), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    parts = np.asarray(cv2.resize(small, (_PARTS, _PARTS), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return _hash(grey), parts.ravel(), grey


def has_contrast(grey: NDArray[np.float32]) -> bool:
    """Whether a picture has more than one grey, so that its hash means something."""
    return bool(np.ptp(grey) >= _LEAST_CONTRAST)


def _hash(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    frequencies = np.asarray(cv2.dct(grey))[:_KEPT, :_KEPT]
    lowest = frequencies[:_LOWEST, :_LOWEST].ravel()
    rest = np.concatenate([frequencies[:_LOWEST, _LOWEST:].ravel(), frequencies[_LOWEST:].ravel()])
    bits = np.concatenate([part > np.median(part) for part in (lowest, rest)])
    return np.packbits(bits)
