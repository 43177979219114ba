"""The parts of a detector that have a row for each class, and how rows move between sets of classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

_CLASS_HEAD = re.compile(
    r"decoder\.(denoising_class_embed\.weight|(enc_score_head|dec_score_head\.\d+)\.(weight|bias))"
)
_EMBEDDING = "decoder.denoising_class_embed.weight"


def is_class_head(name: str) -> bool:
    """Whether the entry of a state dict has a row for each class."""
    return _CLASS_HEAD.fullmatch(name) is not None


def with_rows(name: str, own: Tensor, given: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """``own`` with the given rows of some classes.

    Args:
        name: the entry's name.
        own: ``[C, ...]``, or ``[C + 1, ...]`` for the embedding of denoising queries, whose last row stands for none.
        given: the same for other classes, ``[C', ...]``.
        rows: pairs (row of ``own``, row of ``given``).
    """
    mixed = own.detach().clone()
    for here, there in rows:
        mixed[here] = given[there]
    if name == _EMBEDDING:
        mixed[-1] = given[-1]
    return mixed
