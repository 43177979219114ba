"""Models of other channels than RGB: their architecture, and weights of RGB in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rtdetrv2_train.checkpoints.architecture_from_weights import architecture_from_weights
from rtdetrv2_train.checkpoints.input_channels import with_channels
from rtdetrv2_train.checkpoints.loading import load_weights
from rtdetrv2_train.checkpoints.model_folder import ModelCard, read_card, write_model_folder
from rtdetrv2_train.checkpoints.pretrained_backbones import load_pretrained_backbone
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.huggingface import write_huggingface_folder
from rtdetrv2_train.export.reference import write_authors_file
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.runs.model_configuration import configured_architecture, model_config
from tests.support import small_model

HGNET = "hgnetv2_l"


def of_channels(channels: int) -> RTDETRv2:
    torch.manual_seed(0)
    return RTDETRv2(replace(small_model().architecture, in_channels=channels)).eval()


def test_an_architecture_without_channels_is_one_of_rgb() -> None:
    architecture = small_model().architecture
    values = architecture.to_dict()
    assert values.pop("in_channels") == 3
    assert Architecture.from_dict(values) == architecture
    assert Architecture.from_dict({**values, "in_channels": 5}).in_channels == 5
    with pytest.raises(UserError, match="in_channels is 0"):
        Architecture.from_dict({**values, "in_channels": 0})


@pytest.mark.parametrize("channels", [1, 2, 4, 9])
def test_weights_show_the_channels(channels: int, tmp_path: Path) -> None:
    model = of_channels(channels)
    assert architecture_from_weights(model.state_dict()).in_channels == channels
    card = ModelCard(model.architecture, ("a", "b", "c", "d"), (1, 2, 3, 4))
    write_model_folder(tmp_path, model.state_dict(), card)
    assert read_card(tmp_path).architecture.in_channels == channels
    restored = RTDETRv2(read_checkpoint(tmp_path).architecture).eval()
    load_weights(restored, tmp_path)
    images = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(model(images).logits, restored(images).logits)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_kernels_of_rgb_are_adapted(channels: int) -> None:
    kernels = torch.randn(8, 3, 3, 3)
    weights, note = with_channels({"first": kernels, "other": torch.ones(3)}, "first", channels)
    changed = weights["first"]
    assert changed.shape == (8, channels, 3, 3)
    assert note
    if channels == 1:
        torch.testing.assert_close(changed[:, 0], kernels.sum(1))
    else:
        kept = min(channels, 3)
        torch.testing.assert_close(changed[:, :kept] * (channels / 3), kernels[:, :kept])
        for further in range(3, channels):
            torch.testing.assert_close(changed[:, further] * (channels / 3), kernels.mean(1))
    # On an image whose channels are all alike, the first convolution gives what it gave.
    grey = torch.rand(1, 1, 16, 16)
    one = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernels)
    other = torch.nn.functional.conv2d(grey.expand(-1, channels, -1, -1), changed)
    if channels != 2:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_run_may_start_from_a_model_of_rgb(channels: int) -> None:
    source, model = of_channels(3), of_channels(channels)
    report = load_weights(model, source.state_dict())
    assert any("conv1_1" in line and "channel" in line for line in report.summary())
    grey = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = source(grey.expand(-1, 3, -1, -1)).logits
        torch.testing.assert_close(model(grey.expand(-1, channels, -1, -1)).logits, expected, atol=1e-4, rtol=1e-3)
    assert not load_weights(of_channels(channels), model.state_dict()).channels


def test_weights_of_other_channels_are_refused() -> None:
    for channels in (3, 5):
        with pytest.raises(UserError, match=r"takes images of 4 channels, and this model of \d: set data\.channels=4"):
            load_weights(of_channels(channels), of_channels(4).state_dict())


@pytest.mark.parametrize("name", ["r18vd", HGNET])
def test_a_pretrained_backbone_is_adapted(name: str, tmp_path: Path) -> None:
    config = model_config(name)
    rgb, other = (RTDETRv2(configured_architecture(config, in_channels=n)).backbone for n in (3, 4))
    torch.save(rgb.state_dict(), tmp_path / "backbone.pth")
    line = load_pretrained_backbone(other, str(tmp_path / "backbone.pth"))
    assert "the kernels of 4 channels begin with those of red, green and blue, the others with their mean" in line
    assert "\n" not in line
    first = f"{other.first_convolution}.weight"
    torch.testing.assert_close(other.state_dict()[first][:, :3] * 4 / 3, rgb.state_dict()[first])
    assert "kernels" not in load_pretrained_backbone(rgb, str(tmp_path / "backbone.pth"))


def test_a_frozen_stem_learns_other_channels() -> None:
    config = model_config("r50vd")
    config.architecture.backbone.freeze_stem = True
    for channels, trains in ((3, False), (4, True)):
        backbone = RTDETRv2(configured_architecture(config, in_channels=channels)).backbone
        first, *others = (parameter for name, parameter in backbone.named_parameters() if name.startswith("conv1."))
        assert first.requires_grad == trains
        assert not any(parameter.requires_grad for parameter in others)


@pytest.mark.parametrize("name", ["r18vd", pytest.param(HGNET, marks=pytest.mark.slow)])
def test_transformers_computes_the_same_of_four_channels(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = RTDETRv2(configured_architecture(model_config(name), 4, (128, 128), in_channels=4)).eval()
    names = ("a", "b", "c", "d")
    write_huggingface_folder(tmp_path, model.state_dict(), names, model.architecture)
    theirs = transformers.RTDetrV2ForObjectDetection.from_pretrained(tmp_path).eval()
    images = torch.rand(1, 4, 128, 128)
    with torch.inference_mode():
        ours, found = model(images), theirs(pixel_values=images)
    order = [np.argsort(logits[0].max(-1).values.numpy())[::-1][:50] for logits in (ours.logits, found.logits)]
    scores = [logits[0].max(-1).values.numpy()[o] for logits, o in zip((ours.logits, found.logits), order, strict=True)]
    np.testing.assert_allclose(*scores, atol=2e-3)
    assert read_checkpoint(tmp_path).architecture.in_channels == 4


def test_the_authors_code_has_rgb_only(tmp_path: Path) -> None:
    architecture = configured_architecture(model_config("r18vd"), in_channels=4)
    with pytest.raises(UserError, match="has models of RGB only, and this one takes 4 channels: export with"):
        write_authors_file(tmp_path / "model.pth", {}, architecture)
