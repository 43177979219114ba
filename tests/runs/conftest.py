"""A small model to predict with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from rtdetrv2_train import build_model
from rtdetrv2_train.weights.model_folder import ModelCard, write_model_folder
from tests.support import composed, fill


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``nano`` model of three classes with made-up weights, which is never sure."""
    folder = tmp_path_factory.mktemp("nano") / "model"
    model = build_model("nano", num_classes=3)
    fill(model)
    for head in model.decoder.dec_score_head:
        torch.nn.init.constant_(head.bias, -2.2)  # scores of about 0.1, so that some are above a low threshold
    config = composed("model=nano", "model.architecture.decoder.num_classes=3")
    architecture = OmegaConf.to_container(config.model.architecture, resolve=True)
    card = ModelCard(architecture, ("red", "green", "blue"), (3, 5, 7), (128, 128))
    write_model_folder(folder, model.state_dict(), card)
    return folder
