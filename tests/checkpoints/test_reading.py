"""A checkpoint is recognised whoever wrote it, without being told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rtdetrv2_train.checkpoints.huggingface_names import to_huggingface
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.huggingface import write_huggingface_folder
from tests.support import small_model

NAMES = ("cat", "dog", "bird", "fish")
ARCHITECTURE = replace(small_model(num_classes=4).architecture, image_size=(64, 96))
CARD = ModelCard(
    ARCHITECTURE,
    class_names=NAMES,
    category_ids=(3, 5, 8, 9),
    letterbox=True,
    pixel_range=(2e4, 21500.0),
    threshold=0.4,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return small_model(num_classes=4).state_dict()


def assert_same(actual: Any, expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_the_moving_average_of_the_authors_checkpoint_is_preferred(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    live = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    content = {"last_epoch": 71, "model": live, "ema": {"module": weights, "updates": 9}, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "authors.pth")
    checkpoint = read_checkpoint(tmp_path / "authors.pth")
    assert checkpoint.kind == "authors"
    assert checkpoint.class_names is None
    assert checkpoint.source == str(tmp_path / "authors.pth")
    assert_same(checkpoint.state_dict, weights)


def test_without_a_moving_average_the_model_is_taken_and_wrappers_are_removed(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}
    torch.save({"model": wrapped, "ema": None}, tmp_path / "authors.pth")
    checkpoint = read_checkpoint(tmp_path / "authors.pth")
    assert checkpoint.kind == "authors"
    assert_same(checkpoint.state_dict, weights)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_bare_state_dict_as_converted_from_paddle_is_read(
    tmp_path: Path, weights: dict[str, Tensor], suffix: str
) -> None:
    computed = ("num_batches_tracked", "num_points_scale", "anchors", "valid_mask")
    bare = {name: tensor for name, tensor in weights.items() if not name.endswith(computed)}
    path = tmp_path / f"paddle{suffix}"
    torch.save(bare, path) if suffix == ".pth" else save_file(bare, path)
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.kind == "state_dict"
    assert checkpoint.architecture.backbone.freeze_batchnorm
    assert_same(checkpoint.state_dict, bare)


def lightning(weights: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    return {
        "pytorch-lightning_version": "2.6.6",
        "epoch": 3,
        "state_dict": {**{f"model.{name}": tensor for name, tensor in weights.items()}, "scale": torch.ones(1)},
        **more,
    }


def test_a_lightning_checkpoint_is_read_with_its_card(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(lightning(weights, model_card=CARD.to_dict()), tmp_path / "epoch3.ckpt")
    checkpoint = read_checkpoint(tmp_path / "epoch3.ckpt")
    assert checkpoint.kind == "lightning"
    assert checkpoint.class_names == NAMES
    assert checkpoint.category_ids == (3, 5, 8, 9)
    assert checkpoint.image_size == (64, 96)
    assert checkpoint.architecture == ARCHITECTURE
    assert_same(checkpoint.state_dict, weights)


def test_a_run_folder_gives_its_exported_model_then_its_best_then_its_last_checkpoint(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save(lightning(weights), tmp_path / "checkpoints" / "last.ckpt")
    assert read_checkpoint(tmp_path).source.endswith("last.ckpt")
    torch.save(lightning(weights), tmp_path / "checkpoints" / "best.ckpt")
    assert read_checkpoint(tmp_path).source.endswith("best.ckpt")
    write_model_folder(tmp_path / "model", weights, CARD)
    assert read_checkpoint(tmp_path).kind == "model_folder"


def test_a_model_folder_comes_back_as_it_was_written(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_model_folder(tmp_path / "model", weights, CARD)
    assert set(json.loads((tmp_path / "model" / "model.json").read_text())) == {
        "architecture",
        "class_names",
        "category_ids",
        "letterbox",
        "pixel_range",
        "threshold",
    }
    for source in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        checkpoint = read_checkpoint(source)
        assert checkpoint.kind == "model_folder"
        assert checkpoint.class_names == NAMES
        assert checkpoint.image_size == (64, 96)
        assert checkpoint.letterbox
        assert checkpoint.pixel_range == (20000, 21500)
        assert_same(checkpoint.state_dict, weights)


def test_a_model_folder_with_a_damaged_card_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_model_folder(tmp_path, weights, CARD)
    (tmp_path / "model.json").write_text('{"class_names": ["cat"]}')
    with pytest.raises(UserError, match=r"model\.json' does not describe a model.*architecture"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.json' cannot be read"):
        read_checkpoint(tmp_path)


def test_class_names_that_do_not_fit_the_weights_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    card = {**CARD.to_dict(), "class_names": ["cat", "dog"]}
    write_model_folder(tmp_path, weights, ModelCard.from_dict(card, "test"))
    with pytest.raises(UserError, match="4 classes but 2 class names"):
        read_checkpoint(tmp_path)


def test_a_sharded_hugging_face_folder_is_read(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_huggingface_folder(tmp_path, weights, NAMES, ARCHITECTURE)
    (tmp_path / "model.safetensors").unlink()
    converted = to_huggingface(weights)
    names = sorted(converted)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: converted[name].clone() for name in members}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.kind == "huggingface"
    assert checkpoint.class_names == NAMES
    expected = {k: v for k, v in weights.items() if k not in ("decoder.anchors", "decoder.valid_mask")}
    assert_same(checkpoint.state_dict, expected)


def test_placeholder_labels_are_no_class_names(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    write_huggingface_folder(tmp_path, weights, [f"LABEL_{index}" for index in range(4)], ARCHITECTURE)
    assert read_checkpoint(tmp_path).class_names is None


def test_another_hugging_face_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(UserError, match=r"of type 'detr'.*rt_detr_v2"):
        read_checkpoint(tmp_path)


def test_a_hub_id_is_fetched(tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    write_huggingface_folder(tmp_path, weights, NAMES, ARCHITECTURE)
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: (asked.append(name), str(tmp_path))[1])
    checkpoint = read_checkpoint("PekingU/rtdetr_v2_r18vd")
    assert asked == ["PekingU/rtdetr_v2_r18vd"]
    assert checkpoint.source == "PekingU/rtdetr_v2_r18vd"
    assert_same(checkpoint.state_dict, dict(read_checkpoint(tmp_path).state_dict))


def test_a_hub_that_cannot_be_reached_is_one_line_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(name: str, **_: Any) -> str:
        raise hub.errors.LocalEntryNotFoundError("no connection\nand a second line")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"some/model.*no file or folder.*no connection.*hf download") as caught:
        read_checkpoint("some/model")
    assert "\n" not in str(caught.value)


def test_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth' does not exist"):
        read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match=r"runs/none\.ckpt' does not exist"):
        read_checkpoint("runs/none.ckpt")
    with pytest.raises(UserError, match=r"holds no checkpoint.*best\.ckpt"):
        read_checkpoint(tmp_path)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "classifier.pth")
    with pytest.raises(UserError, match=r"classifier\.pth' cannot be used.*not the weights of an RT-DETRv2"):
        read_checkpoint(tmp_path / "classifier.pth")
