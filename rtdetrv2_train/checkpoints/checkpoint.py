"""A detector's weights with what is known about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rtdetrv2_train.checkpoints.architecture_from_weights import architecture_from_weights
from rtdetrv2_train.checkpoints.model_folder import ModelCard
from rtdetrv2_train.classes import COCO, Classes, match_classes, usual_ids
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.architecture import Architecture

log = logging.getLogger(__name__)

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

    def named_beside(self, names: Sequence[str] = ()) -> tuple[str, ...] | None:
        """The names of the classes; where the weights have none, those of COCO for 80 classes, which the log says.

        Args:
            names: of the classes of annotations. Where these are 80 others, the weights may be of those.
        """
        num_classes = self.architecture.num_classes
        if self.class_names is not None or num_classes != len(COCO):
            return self.class_names
        shared = [index for index in match_classes(names, tuple(COCO.values())) if index is not None]
        if len(names) == num_classes and 2 * len(shared) < num_classes:
            return None
        log.info("'%s' does not name its %d classes: they are taken for COCO's", self.source, num_classes)
        return tuple(COCO.values())

    def classes_beside(self, annotations: Classes, names: Sequence[str] | None = None) -> Classes:
        """The classes of the model, for evaluation on annotations.

        Args:
            annotations: their classes. Where names are missing and there are as many, the model has the same classes.
            names: of the model's classes, instead of those that it has.

        Raises:
            UserError: if there is no telling which classes the model has.
        """
        num_classes = self.architecture.num_classes
        names = names or self.named_beside(annotations.names)
        if names is None and len(annotations.names) == num_classes:
            return annotations
        if names is None or len(names) != num_classes:
            given = "it does not name them" if names is None else f"class_names= has {len(names)}"
            raise UserError(
                f"'{self.source}' has {num_classes} classes, but {given}, and '{annotations.source}' has "
                f"{len(annotations.names)}: give class_names= in the order of the class indices"
            )
        return Classes(tuple(names), self.category_ids or usual_ids(names), self.source)

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
