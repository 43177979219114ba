"""A detector's weights with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.weights.architecture import ArchitectureFacts, infer_architecture

CheckpointKind = Literal["authors", "state_dict", "huggingface", "lightning", "model_folder"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a detector.

    Attributes:
        state_dict: tensors under the reference names.
        source: where they came from, for messages.
        kind: how they were stored.
        facts: shape of the model, read off the weights and, where there is one, the configuration.
        class_names: in the order of the class indices, where known.
        category_ids: the annotation file's id of each class, where known.
        image_size: (height, width) of the input in pixels, where known.
        letterbox: whether images keep their aspect ratio in it.
        architecture: the configuration that a model of ours was built from, where known.
    """

    state_dict: Mapping[str, Tensor]
    source: str
    kind: CheckpointKind
    facts: ArchitectureFacts
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    image_size: tuple[int, int] | None = None
    letterbox: bool = False
    architecture: Mapping[str, Any] | None = None


def make_checkpoint(
    state_dict: Mapping[str, Any],
    source: str,
    kind: CheckpointKind,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    image_size: tuple[int, int] | None = None,
    letterbox: bool = False,
    architecture: Mapping[str, Any] | None = None,
    unseen: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint, its facts inferred.

    Args:
        state_dict: under the reference names; what is no tensor is left out.
        source: where the weights came from.
        kind: how they were stored.
        class_names: where known.
        category_ids: where known.
        image_size: where known.
        letterbox: whether images keep their aspect ratio.
        architecture: where known; tells ``num_queries``, ``method`` and ``encoder_heads``.
        unseen: those of the facts that weights do not show, from elsewhere.

    Raises:
        UserError: if these are not a detector's weights, or the names do not fit their classes.
    """
    tensors = {name: tensor for name, tensor in state_dict.items() if isinstance(tensor, Tensor)}
    try:
        facts = infer_architecture(tensors)
    except UserError as error:
        raise UserError(f"'{source}' cannot be used: {error}") from error
    known = {**_unseen_facts(architecture or {}), **(unseen or {})}
    facts = replace(facts, **{name: value for name, value in known.items() if value is not None})
    if class_names is not None and len(class_names) != facts.num_classes:
        raise UserError(
            f"'{source}' has {facts.num_classes} classes but {len(class_names)} class names: export it again"
        )
    return Checkpoint(
        state_dict=tensors,
        source=source,
        kind=kind,
        facts=facts,
        class_names=None if class_names is None else tuple(class_names),
        category_ids=None if category_ids is None else tuple(category_ids),
        image_size=image_size,
        letterbox=letterbox,
        architecture=architecture,
    )


def _unseen_facts(architecture: Mapping[str, Any]) -> dict[str, Any]:
    decoder, encoder = architecture.get("decoder") or {}, architecture.get("encoder") or {}
    return {
        "num_queries": decoder.get("num_queries"),
        "method": decoder.get("sampling"),
        "encoder_heads": encoder.get("num_heads"),
    }
