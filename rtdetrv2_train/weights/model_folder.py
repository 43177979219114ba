"""The ``model/`` folder at the end of a run: weights, and beside them everything needed to predict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.weights.saving import save_json, save_tensors

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What weights alone do not say.

    Attributes:
        architecture: the configuration that the model is built from.
        class_names: in the order of the class indices.
        category_ids: the annotation file's id of each class.
        image_size: (height, width) of the input in pixels.
        letterbox: whether images keep their aspect ratio in it, with a black margin at the right or below.
    """

    architecture: Mapping[str, Any]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_size: tuple[int, int]
    letterbox: bool = False

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
            height, width = values["image_size"]
            return cls(
                architecture=dict(values["architecture"]),
                class_names=tuple(str(name) for name in values["class_names"]),
                category_ids=tuple(int(category) for category in values["category_ids"]),
                image_size=(int(height), int(width)),
                letterbox=bool(values.get("letterbox", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where} does not describe a model ({type(error).__name__}: {error}): it needs architecture, "
                "class_names, category_ids and image_size; export the model again"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data, for JSON or a checkpoint."""
        return {
            "architecture": dict(self.architecture),
            "class_names": list(self.class_names),
            "category_ids": list(self.category_ids),
            "image_size": list(self.image_size),
            "letterbox": self.letterbox,
        }


def write_model_folder(folder: str | Path, state_dict: Mapping[str, Tensor], card: ModelCard) -> Path:
    """Write ``model.safetensors`` and ``model.json``.

    Args:
        folder: made if missing.
        state_dict: under the reference names.
        card: goes to ``model.json``; its architecture must be plain data.

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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: if the file is missing or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}): write or fetch it again") from error
    if not isinstance(values, dict):
        raise UserError(f"'{path}' holds a {type(values).__name__}, not a JSON object: write or fetch it again")
    return values


def names_or_none(names: Sequence[str]) -> tuple[str, ...] | None:
    """Class names, or None where they are the placeholders that transformers writes for want of names."""
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)
