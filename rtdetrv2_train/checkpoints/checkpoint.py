"""A detector's weights with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rtdetrv2_train.checkpoints.architecture_from_weights import architecture_from_weights
from rtdetrv2_train.checkpoints.model_folder import ModelCard
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.architecture import Architecture

CheckpointKind = Literal["authors", "state_dict", "huggingface", "lightning", "model_folder"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a detector.

    Attributes:
        state_dict: tensors under the reference names.
        source: where they came from, for messages.
        kind: the format they were stored in.
        architecture: that of the card where there is one, else what the weights show.
        card: what a model of ours says of itself; None for other weights.
        class_names: in the order of the class indices, where known.
        image_size: (height, width) of the input in pixels, where known.
    """

    state_dict: Mapping[str, Tensor]
    source: str
    kind: CheckpointKind
    architecture: Architecture
    card: ModelCard | None = None
    class_names: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None

    @property
    def category_ids(self) -> tuple[int, ...] | None:
        """The annotation file's id of each class, where known."""
        return None if self.card is None else self.card.category_ids

    @property
    def letterbox(self) -> bool:
        """Whether images keep their aspect ratio in the input."""
        return self.card is not None and self.card.letterbox

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """Values of images of more than 8 bits that are black and white, where a training set needed that."""
        return None if self.card is None else self.card.pixel_range


def make_checkpoint(
    state_dict: Mapping[str, Any],
    source: str,
    kind: CheckpointKind,
    card: ModelCard | None = None,
    class_names: Sequence[str] | None = None,
) -> Checkpoint:
    """A checkpoint, with the architecture that its weights show unless a card says more.

    Args:
        state_dict: under the reference names; what is no tensor is left out.
        source: where the weights came from.
        kind: the format they were stored in.
        card: of a model of ours.
        class_names: those of the card, or where known from elsewhere.

    Raises:
        UserError: if these are not a detector's weights, or the names do not fit their classes.
    """
    tensors = {name: tensor for name, tensor in state_dict.items() if isinstance(tensor, Tensor)}
    try:
        shown = architecture_from_weights(tensors)
    except UserError as error:
        raise UserError(f"'{source}' cannot be used: {error}") from error
    names = class_names if card is None else card.class_names
    if names is not None and len(names) != shown.num_classes:
        raise UserError(f"'{source}' has {shown.num_classes} classes but {len(names)} class names: export it again")
    return Checkpoint(
        state_dict=tensors,
        source=source,
        kind=kind,
        architecture=shown if card is None else card.architecture,
        card=card,
        class_names=None if names is None else tuple(names),
        image_size=None if card is None else card.architecture.image_size,
    )
