"""The ``model/`` folder at the end of a run: weights, and beside them everything needed to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetrv2_train.checkpoints.tensors import save_tensors
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import read_json, save_json
from rtdetrv2_train.model.architecture import Architecture

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What weights alone do not say.

    Attributes:
        architecture: what the model is built from.
        class_names: in the order of the class indices.
        category_ids: the annotation file's id of each class.
        letterbox: whether images keep their aspect ratio in the input, with a black margin at the right or below.
        pixel_range: values of images of more than 8 bits that are black and white; None: those of all of 16 bits.
        threshold: score that detections should have, where that was measured.
    """

    architecture: Architecture
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    letterbox: bool = False
    pixel_range: tuple[float, float] | None = None
    threshold: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> ModelCard:
        """The card in plain data.

        Args:
            values: as :meth:`to_dict` makes it.
            where: what holds it, for the error.

        Raises:
            UserError: if a key is missing or is not what it should be.
        """
        try:
            limits = values.get("pixel_range")
            return cls(
                architecture=Architecture.from_dict(values["architecture"], "architecture"),
                class_names=tuple(str(name) for name in values["class_names"]),
                category_ids=tuple(int(category) for category in values["category_ids"]),
                letterbox=bool(values["letterbox"]),
                pixel_range=None if limits is None else (float(limits[0]), float(limits[1])),
                threshold=None if (score := values.get("threshold")) is None else float(score),
            )
        except (LookupError, TypeError, ValueError, UserError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} does not describe a model ({reason}): export the model again") from error

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, for JSON or a checkpoint."""
        return {
            "architecture": self.architecture.to_dict(),
            "class_names": list(self.class_names),
            "category_ids": list(self.category_ids),
            "letterbox": self.letterbox,
            "pixel_range": None if self.pixel_range is None else list(self.pixel_range),
            "threshold": self.threshold,
        }


def write_model_folder(folder: str | Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> Path:
    """Write ``model.safetensors`` and ``model.json``.

    Args:
        folder: made if missing.
        state_dict: under the reference names.
        card: goes to ``model.json``.

    Returns:
        ``folder``.
    """
    folder = Path(folder)
    save_tensors(folder / WEIGHTS, state_dict)
    save_json(folder / CARD, card.to_dict())
    return folder


def read_card(folder: Path) -> ModelCard:
    """The card of a ``model/`` folder.

    Raises:
        UserError: if it is damaged or incomplete.
    """
    return ModelCard.from_dict(read_json(folder / CARD), f"'{folder / CARD}'")


def names_or_none(names: Sequence[str]) -> tuple[str, ...] | None:
    """Class names, or None where they are the placeholders that transformers writes where there are no names."""
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)
