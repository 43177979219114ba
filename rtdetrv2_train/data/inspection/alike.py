"""Which images are alike: candidates by their hashes, verified by their fine structure.

A hash says what a picture looks like from afar, and so do pictures of one kind, such as radiographs. What is left of
two small pictures without their blurred selves agrees only where they are of the same scene. On photographs and
microscope images, copies correlate above 0.97 however they were saved, those shifted or cut by 2 % above 0.5, and
different ones below 0.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rtdetrv2_train.data.images.fingerprints import Fingerprints
from rtdetrv2_train.data.inspection.looks import Look

_NEAR, _COPY = 0.5, 0.97  # least correlation of the fine structure
_COPY_BITS, _COPY_STEPS = 12, 4  # of the hash, in which copies differ at most; places apart in an order by hashes
_AT_ONCE = 10_000  # pairs
_MOST_TRIED = 64  # images of the other part that one is compared with, in a group of images that are alike


@dataclass(frozen=True)
class Alike:
    """Pairs of images that are alike, by their place among all images of all parts.

    Attributes:
        one: int64 ``[n]``, smaller than ``other``.
        other: int64 ``[n]``.
        copies: bool ``[n]``, whether they are the same picture, saved again perhaps; else one that differs a little.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    copies: NDArray[np.bool_]


class Pictures:
    """Hashes and fine structure of all images.

    Args:
        looks: at I images.
    """

    def __init__(self, looks: Sequence[Look]) -> None:
        self._details = np.frombuffer(b"".join(look.detail for look in looks), dtype=np.int8).reshape(len(looks), -1)
        self._files = np.array([(look.length, look.checksum) for look in looks], dtype=np.int64).reshape(-1, 2)
        self._prints = Fingerprints(
            np.frombuffer(b"".join(look.hash for look in looks), dtype=np.uint8).reshape(len(looks), -1),
            np.zeros((len(looks), 0), dtype=np.uint8),
            np.array([not look.error and not look.plain for look in looks], dtype=bool),
        )

    def alike(self) -> Alike:
        """Pairs of images that are alike; of many, enough that all are connected.

        Pairs that are connected already are not compared again: of a video nearly all pairs would be.
        """
        near, copies = _Groups(len(self._details)), _Groups(len(self._details))
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = []

        def compare(one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
            agreement = self.agreement(one, other)
            kept = agreement >= _NEAR
            same = self._are_copies(one, other, agreement) & kept
            new = same | (kept & near.are_apart(one, other))
            near.join(one[new], other[new])
            copies.join(one[same], other[same])
            found.append((np.minimum(one, other)[new], np.maximum(one, other)[new], same[new]))

        compare(*self._pairs_of_equal_files())
        for step, one, other in self._prints.blocks_of_pairs():
            tried = near.are_apart(one, other)
            if step <= _COPY_STEPS:
                tried |= copies.are_apart(one, other) & (self._prints.distances(one, other) <= _COPY_BITS)
            if tried.any():
                compare(one[tried], other[tried])
        ones, others, same = (np.concatenate(column) for column in zip(*found, strict=True))
        return Alike(ones, others, same)

    def _pairs_of_equal_files(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each image whose file is that of an earlier one, and that one; images of one colour aside."""
        usable = np.flatnonzero(self._prints.usable)
        _, first, of_file = np.unique(self._files[usable], axis=0, return_index=True, return_inverse=True)
        firsts = usable[first][of_file.ravel()]
        later = firsts != usable
        return firsts[later], usable[later]

    def agreement(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
        """Correlation of the fine structure of images ``[n]``, from -1 to 1; 1 for equal files."""
        found = np.empty(len(one))
        for start in range(0, len(one), _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            a, b = (self._details[which[block]].astype(np.float32) for which in (one, other))
            lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
            found[block] = (a * b).sum(axis=1) / np.maximum(lengths, 1e-9)
        found[self._equal_files(one, other)] = 1.0
        return found

    def _are_copies(
        self, one: NDArray[np.int64], other: NDArray[np.int64], agreement: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        near = (agreement >= _COPY) & (self._prints.distances(one, other) <= _COPY_BITS)
        return near | self._equal_files(one, other)

    def _equal_files(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((self._files[one] == self._files[other]).all(axis=1))

    def partners(self, alike: Alike, own: NDArray[np.int64], others: NDArray[np.int64]) -> dict[int, tuple[int, bool]]:
        """For images of one part, the one of another part that is most alike, and whether it is a copy.

        Args:
            alike: pairs of images.
            own: numbers of the images of the one part.
            others: of the other.
        """
        count = len(self._details)
        groups = groups_of(alike, count)
        of_others: dict[int, list[int]] = {}
        for image in others[np.isin(others, np.concatenate([alike.one, alike.other]))].tolist():
            of_others.setdefault(int(groups[image]), []).append(image)
        found: dict[int, tuple[int, bool]] = {}
        for image in own[np.isin(groups[own], list(of_others))].tolist():
            candidates = np.array(of_others[int(groups[image])])
            apart = self._prints.distances(np.full(len(candidates), image), candidates)
            candidates = candidates[np.argsort(apart, kind="stable")[:_MOST_TRIED]]
            same = np.full(len(candidates), image)
            agreement = self.agreement(same, candidates)
            best = int(np.argmax(agreement))
            if agreement[best] >= _NEAR:
                copy = self._are_copies(same[[best]], candidates[[best]], agreement[[best]])
                found[image] = (int(candidates[best]), bool(copy[0]))
        return found


class _Groups:
    """Which images are connected so far.

    Args:
        count: of images.
    """

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)

    def are_apart(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the images of pairs are not connected."""
        return np.asarray(self._labels[one] != self._labels[other])

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Connect the images of pairs."""
        if len(one):
            self._labels = _connected(self._labels[one], self._labels[other], len(self._labels))[self._labels]


def groups_of(alike: Alike, count: int, copies_only: bool = False) -> NDArray[np.int64]:
    """The group ``[count]`` of each image, within which all are connected by pairs."""
    kept = alike.copies if copies_only else np.ones(len(alike.one), dtype=bool)
    return _connected(alike.one[kept], alike.other[kept], count)


def _connected(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The group of each of so many nodes that pairs connect."""
    edges = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)
