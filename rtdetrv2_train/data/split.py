"""A validation part for a set without one: what belongs together stays together, and classes keep their shares.

Near-duplicates, frames of one video, tiles of one picture, and versions that one picture was augmented to would tell
the answers if they lay on both sides: AP would be too high.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.fingerprints import Fingerprints
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

# Endings of names that Roboflow gives to the versions of a picture, and tools that cut pictures to their tiles.
_VERSION = re.compile(r"[._](?:jpe?g|png|bmp|webp|tiff?)\.rf\.\w+\.\w+$", re.IGNORECASE)
_TILE = re.compile(r"(?:__\d+__-?\d+___-?\d+|(?:[_-](?:tile|patch|crop|x|y|r|c|row|col)[_-]?\d+)+|(?:_\d+){4})$")
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)$")
_LEAST_FRAMES = 5
_LARGEST = 0.25  # share of the images: a group that is larger is cut
_STRETCHES = 20  # of all images, to which it is cut


def split(annotations: AnnotationTable, share: float, seed: int) -> NDArray[np.bool_]:
    """Which images are held out.

    Args:
        annotations: of all images.
        share: of the images to hold out, above 0 and below 1; at least one image is.
        seed: equal seeds split equal sets equally.

    Returns:
        bool ``[I]``.

    Raises:
        UserError: if there are fewer than two images.
    """
    if len(annotations) < 2:
        raise UserError(f"'{annotations.annotation_file}' has one image: it cannot be split, so give data.val")
    groups = _groups(annotations)
    held_out = np.isin(groups, _chosen(annotations, groups, share, np.random.default_rng(seed)))
    together = int(groups.max()) + 1 < len(groups)
    logger.info(
        "'%s': %d of %d images are held out for validation%s",
        annotations.annotation_file,
        held_out.sum(),
        len(held_out),
        f"; near-duplicates, tiles and frames of a video stay together, in {groups.max() + 1} groups" * together,
    )
    return held_out


def _groups(annotations: AnnotationTable) -> NDArray[np.int64]:
    """The group of each image ``[I]``, from 0."""
    names = annotations.file_names.tolist()
    found = Fingerprints.of(annotations)
    belonging = [*_videos(names, found), *_pictures(names)]
    pairs = [pair for images in belonging for pair in pairwise(images)]
    groups = _connected([*pairs, *found.near_duplicates()], len(names))
    largest = max(_LARGEST * len(names), 2) if groups.any() else 1  # all in one group: there has to be another side
    for group in np.flatnonzero(np.bincount(groups) > largest).tolist():
        members = sorted(np.flatnonzero(groups == group).tolist(), key=lambda image: _natural(names[image]))
        logger.warning(
            "'%s': %d of %d images, such as '%s', are alike or of one video. They are cut into stretches, so AP will "
            "be too high: give data.val, of another day or place",
            annotations.annotation_file,
            len(members),
            len(names),
            names[members[0]],
        )
        groups[members] = groups.max() + 1 + np.arange(len(members)) // -(-len(names) // _STRETCHES)
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64).ravel()


def _videos(names: Sequence[str], found: Fingerprints) -> Iterator[list[int]]:
    """Images that are numbered and of which each looks like the one before, in their order."""
    series: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for image, name in enumerate(names):
        if found.usable[image] and (parts := _NUMBERED.match(PurePosixPath(name).with_suffix("").as_posix())):
            series.setdefault((parts[1], parts[3]), []).append((int(parts[2]), image))
    for numbered in series.values():
        if len(numbered) >= _LEAST_FRAMES:
            images = [image for _, image in sorted(numbered)]
            if found.is_series(images):
                yield images


def _pictures(names: Iterable[str]) -> Iterator[list[int]]:
    """Images that by their names are tiles or versions of one picture."""
    pictures: dict[str, list[int]] = {}
    for image, name in enumerate(names):
        base = picture_of(name)
        base = _TILE.sub("", str(PurePosixPath(name).with_suffix(""))) if base == name else base
        pictures.setdefault(base, []).append(image)
    return iter(pictures.values())


def picture_of(name: str) -> str:
    """The name of the picture that a file is a version of, as Roboflow makes them; else the file's own name."""
    return _VERSION.sub("", name)


def _connected(pairs: Sequence[tuple[int, int]], count: int) -> NDArray[np.int64]:
    """The connected component of each of so many images."""
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    edges = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def _chosen(
    annotations: AnnotationTable, groups: NDArray[np.int64], share: float, generator: np.random.Generator
) -> list[int]:
    """Groups to hold out, so that each class has its share of the images: the rarest class is settled first."""
    sizes = np.bincount(groups)
    rank = generator.permutation(len(sizes))
    images = np.repeat(np.arange(len(groups)), np.diff(annotations.offsets))
    seen = np.unique(np.stack([images, annotations.labels]), axis=1)
    # images of each class in each group, and of any kind in the last column
    amounts = coo_array(
        (
            np.append(np.ones(seen.shape[1]), sizes),
            (
                np.append(groups[seen[0]], np.arange(len(sizes))),
                np.append(seen[1], np.full(len(sizes), annotations.num_classes)),
            ),
        )
    )
    of_group, of_class = amounts.tocsr(), amounts.tocsc()
    totals = np.asarray(amounts.sum(axis=0)).ravel()
    held = np.zeros_like(totals)
    settled = np.zeros(len(sizes), dtype=bool)
    chosen: list[int] = []
    for label in np.argsort(totals, kind="stable").tolist():
        members = of_class.indices[of_class.indptr[label] : of_class.indptr[label + 1]]
        members = members[~settled[members]]
        settled[members] = True
        for group in members[np.argsort(rank[members])].tolist():
            of_it = slice(of_group.indptr[group], of_group.indptr[group + 1])
            labels, added = of_group.indices[of_it], of_group.data[of_it]
            if held[label] + added[labels == label][0] / 2 <= share * totals[label]:
                held[labels] += added
                chosen.append(group)
    return chosen or [int(np.lexsort((rank, sizes))[0])]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key by which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
