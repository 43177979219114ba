"""Weights go to Hugging Face's names and back unchanged, and transformers computes the same with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdetrv2_train.checkpoints.architecture_from_weights import architecture_from_weights
from rtdetrv2_train.checkpoints.huggingface_names import from_huggingface, has_huggingface_names, to_huggingface
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.huggingface import huggingface_config, write_huggingface_folder
from rtdetrv2_train.model.architecture import Architecture
from tests.support import REFERENCE, made, small_model

transformers = pytest.importorskip("transformers")
Weights = Callable[[str], dict[str, Tensor]]

COCO = [f"class {index}" for index in range(80)]
COMPUTED = ("decoder.anchors", "decoder.valid_mask")


def hollow_transformers_model(architecture: Architecture) -> Any:
    config = transformers.RTDetrV2Config.from_dict(huggingface_config(architecture, COCO))
    with torch.device("meta"):
        return transformers.RTDetrV2ForObjectDetection(config)


@pytest.mark.parametrize(
    "model",
    ["r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_l", "hgnetv2_x", "hgnetv2_h", "r18vd_sp1", "r50vd_dsp"],
)
def test_every_name_and_shape_of_a_scale_has_its_counterpart(model: str, hollow_weights: Weights) -> None:
    ours = {name: tensor for name, tensor in hollow_weights(model).items() if name not in COMPUTED}
    theirs = hollow_transformers_model(architecture_from_weights(ours)).state_dict()
    assert has_huggingface_names(theirs)
    converted = from_huggingface(theirs)
    assert {name: tensor.shape for name, tensor in converted.items()} == {n: t.shape for n, t in ours.items()}


def test_names_on_disk_are_those_that_transformers_writes(tmp_path: Path) -> None:
    model = small_model(num_classes=4)
    config = transformers.RTDetrV2Config.from_dict(huggingface_config(model.architecture, list("abcd")))
    transformers.RTDetrV2ForObjectDetection(config).save_pretrained(tmp_path / "theirs")
    write_huggingface_folder(tmp_path / "ours", model.state_dict(), list("abcd"), model.architecture)
    from safetensors import safe_open

    names = []
    for folder in ("theirs", "ours"):
        with safe_open(tmp_path / folder / "model.safetensors", "pt") as file:
            names.append({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    assert names[0] == names[1]


def test_there_and_back_changes_no_bit(tmp_path: Path) -> None:
    model = small_model(num_classes=4)
    weights = model.state_dict()
    again = from_huggingface(to_huggingface(weights))
    assert set(weights) - set(again) == set(COMPUTED)
    assert all(torch.equal(again[name], weights[name]) for name in again)
    write_huggingface_folder(tmp_path, weights, list("abcd"), model.architecture)
    from_disk = read_checkpoint(tmp_path).state_dict
    assert from_disk.keys() == again.keys()
    assert all(torch.equal(from_disk[name], weights[name]) for name in from_disk)


def test_transformers_keeps_every_tensor_it_loads(tmp_path: Path) -> None:
    ours = small_model(num_classes=4)
    weights = ours.state_dict()
    write_huggingface_folder(tmp_path / "ours", weights, list("abcd"), ours.architecture)
    model, info = transformers.RTDetrV2ForObjectDetection.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert model.config.id2label == dict(enumerate("abcd"))
    model.save_pretrained(tmp_path / "theirs")
    checkpoint = read_checkpoint(tmp_path / "theirs")
    assert checkpoint.class_names == ("a", "b", "c", "d")
    assert set(weights) - set(checkpoint.state_dict) == set(COMPUTED)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in checkpoint.state_dict.items())


@pytest.mark.parametrize("model", ["r18vd", "r18vd_dsp"])
def test_transformers_predicts_the_reference_values(model: str, tmp_path: Path, hollow_weights: Weights) -> None:
    weights = {
        name: torch.tensor(1) if name.endswith("num_batches_tracked") else
        tensor if name.endswith("num_points_scale") else made.tensor_for(name, tuple(tensor.shape))
        for name, tensor in hollow_weights(model).items()
    }  # fmt: skip
    shown = architecture_from_weights(weights)
    decoder = replace(shown.decoder, sampling="discrete" if model.endswith("dsp") else "default")
    write_huggingface_folder(tmp_path, weights, COCO, replace(shown, decoder=decoder))
    detector = transformers.RTDetrV2ForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        output = detector(made.image("image", 1, 640, 640))
    expected = np.load(REFERENCE / f"forward_{model}.npz")
    actual = torch.cat([output.pred_boxes[0], output.logits[0]], -1).numpy()
    wanted = np.concatenate([expected["pred_boxes"][0], expected["pred_logits"][0]], -1)
    # Queries with all but equal scores may change places, so each is compared with the nearest of the reference.
    distance = np.abs(actual[:, None] - wanted[None]).max(-1)
    assert sorted(distance.argmin(1)) == list(range(300))
    close = int((distance.min(1) < 1e-4).sum())
    # Discrete sampling jumps a pixel where a coordinate lies on the border between two.
    assert close == 300 if model == "r18vd" else close >= 295


def test_dropping_unused_decoder_layers_gives_a_model_of_the_others(tmp_path: Path) -> None:
    model = small_model(num_classes=2, num_layers=3)
    fewer = replace(model.architecture, decoder=replace(model.architecture.decoder, num_layers=2))
    write_huggingface_folder(tmp_path, model.state_dict(), ["a", "b"], fewer)
    _, info = transformers.RTDetrV2ForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.architecture.decoder.num_layers == 2
    assert "decoder.dec_score_head.1.weight" in checkpoint.state_dict
    assert "decoder.dec_score_head.2.weight" not in checkpoint.state_dict


def test_the_image_processor_only_resizes_and_rescales(tmp_path: Path) -> None:
    model = small_model()
    write_huggingface_folder(
        tmp_path, model.state_dict(), list("abcd"), replace(model.architecture, image_size=(96, 160))
    )
    processor = transformers.RTDetrImageProcessor.from_pretrained(tmp_path)
    pixels = processor(np.full((50, 70, 3), 255, np.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 96, 160)
    assert pixels.min() == pixels.max() == pytest.approx(1.0)
    assert read_checkpoint(tmp_path).image_size == (96, 160)


def test_reading_a_folder_for_images_that_are_not_square_says_that_predictions_differ(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model()
    for size in ((96, 96), (96, 160)):
        architecture = replace(model.architecture, image_size=size)
        write_huggingface_folder(tmp_path, model.state_dict(), list("abcd"), architecture)
        read_checkpoint(tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "images of 96 x 160, which are not square" in messages[0]


def test_what_transformers_cannot_express_is_refused(hollow_weights: Weights) -> None:
    shown = architecture_from_weights(hollow_weights("r18vd"))
    with pytest.raises(UserError, match=r"one number of sampling points.*\[2, 4, 6\]"):
        huggingface_config(replace(shown, decoder=replace(shown.decoder, num_points=(2, 4, 6))), COCO)
    with pytest.raises(UserError, match="3 fusion blocks, this model has 1"):
        huggingface_config(replace(shown, encoder=replace(shown.encoder, num_fusion_blocks=1)), COCO)
    with pytest.raises(UserError, match="79 class names were given for a model of 80 classes"):
        huggingface_config(shown, COCO[:79])


def test_configuration_carries_what_weights_do_not_show(tmp_path: Path) -> None:
    weights = small_model(num_classes=4).state_dict()
    shown = architecture_from_weights(weights)
    architecture = replace(
        shown,
        decoder=replace(shown.decoder, num_queries=77, sampling="discrete"),
        encoder=replace(shown.encoder, num_heads=2),
    )
    write_huggingface_folder(tmp_path, weights, list("abcd"), architecture)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_attention_heads"] == 2
    assert read_checkpoint(tmp_path).architecture == architecture


def test_names_without_counterpart_and_lone_projections_are_refused() -> None:
    with pytest.raises(UserError, match=r"'encoder\.mystery' has no counterpart"):
        to_huggingface({"encoder.mystery": torch.zeros(1)})
    lone = {"model.decoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}
    with pytest.raises(UserError, match="has only q"):
        from_huggingface(lone)
