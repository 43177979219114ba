"""A small model to predict with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetrv2_train import build_model
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from tests.support import fill_with_scores


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``nano`` model of three classes with made-up weights, which is never sure."""
    folder = tmp_path_factory.mktemp("nano") / "model"
    model = build_model("nano", num_classes=3)
    fill_with_scores(model)
    card = ModelCard(model.architecture, ("red", "green", "blue"), (3, 5, 7))
    write_model_folder(folder, model.state_dict(), card)
    return folder
