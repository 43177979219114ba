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
_COPY_BITS = 12  # of the hash, in which copies differ at most
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
        """All pairs of images that are alike; of many, enough that all are connected."""
        count = len(self._details)
        seen: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        for one, other in self._prints.blocks_of_pairs():
            new = np.minimum(one, other) * count + np.maximum(one, other)
            seen = np.union1d(seen, new) if len(new) else seen
        one, other = np.divmod(seen, max(count, 1))
        agreement = self.agreement(one, other)
        kept = agreement >= _NEAR
        return Alike(one[kept], other[kept], self._are_copies(one, other, agreement)[kept])

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
            near = np.argsort(np.abs(candidates - image), kind="stable")[:_MOST_TRIED]
            candidates, same = candidates[near], np.full(len(near), image)
            agreement = self.agreement(same, candidates)
            best = int(np.argmax(agreement))
            if agreement[best] >= _NEAR:
                copy = self._are_copies(same[[best]], candidates[[best]], agreement[[best]])
                found[image] = (int(candidates[best]), bool(copy[0]))
        return found


def groups_of(alike: Alike, count: int, copies_only: bool = False) -> NDArray[np.int64]:
    """The group ``[count]`` of each image, within which all are connected by pairs."""
    kept = alike.copies if copies_only else np.ones(len(alike.one), dtype=bool)
    pairs = (alike.one[kept], alike.other[kept])
    edges = coo_array((np.ones(int(kept.sum()), dtype=np.int8), pairs), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)
