"""Files appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rtdetrv2_train.checkpoints.tensors import save_tensors
from rtdetrv2_train.files import atomic_save, save_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_save(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "card.json"
    save_json(path, {"names": ["Größe"]})
    save_json(path, {"names": ["b"]})
    assert json.loads(path.read_text()) == {"names": ["b"]}
    assert list(path.parent.iterdir()) == [path]


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    save_tensors(tmp_path / "w.safetensors", {"low": whole[:3], "all": whole, "column": whole.view(2, 3)[:, 1]})
    loaded = load_file(tmp_path / "w.safetensors")
    assert loaded["low"].tolist() == [0, 1, 2]
    assert loaded["all"].tolist() == [0, 1, 2, 3, 4, 5]
    assert loaded["column"].tolist() == [1, 4]
