"""Weight files are read without running anything, and what cannot be read is named with a way out."""

from __future__ import annotations

import os
import pickle
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.errors import UserError


class RunsCode:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    path, marker = tmp_path / "weights.pth", tmp_path / "was_run"
    content = {"model": {"a": torch.ones(1)}, "extra": RunsCode(marker)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"extra": RunsCode(marker)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError) as caught:
        load_tensors(path)
    message = str(caught.value)
    assert not marker.exists()
    assert str(path) in message
    assert "mkdir" in message
    assert "safetensors" in message
    assert "\n" not in message


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_off_anywhere_is_called_truncated(tmp_path: Path, legacy: bool) -> None:
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"a": torch.randn(200)}, whole, _use_new_zipfile_serialization=not legacy)
    data = whole.read_bytes()
    for length in [1, 2, 5, *range(10, len(data) - 1, 97)]:
        cut.write_bytes(data[:length])
        # Cut within the name of a class, the file asks for one that is not known.
        with pytest.raises(
            UserError, match=r"cut\.pth' (is truncated, damaged or no file.*again|was not loaded)"
        ) as caught:
            load_tensors(cut)
        assert "\n" not in str(caught.value)


def test_a_truncated_safetensors_file_is_called_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.randn(200)}, path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"model\.safetensors' is truncated, damaged or no file"):
        load_tensors(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"hello world, this is text", bytes(range(256)) * 4])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated, damaged or no file"):
        load_tensors(path)


def test_missing_empty_and_pointer_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pth' does not exist"):
        load_tensors(tmp_path / "none.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(UserError, match=r"empty\.pth' is empty"):
        load_tensors(tmp_path / "empty.pth")
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git lfs pull"):
        load_tensors(tmp_path / "model.safetensors")


def test_a_file_without_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        load_tensors(tmp_path / "list.pth")


def test_tensors_come_back_bit_for_bit_on_the_cpu(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7), "c": torch.randn(2).half()}
    torch.save(tensors, tmp_path / "w.pt")
    save_file(tensors, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        loaded = load_tensors(tmp_path / name)
        assert loaded.keys() == tensors.keys()
        assert all(
            torch.equal(loaded[key], tensors[key]) and loaded[key].dtype == tensors[key].dtype for key in tensors
        )


def test_plain_data_that_training_leaves_beside_tensors_is_read(tmp_path: Path) -> None:
    lightning_data = pytest.importorskip("lightning.fabric.utilities.data")
    content = {
        "hyper_parameters": lightning_data.AttributeDict(learning_rate=1e-4),
        "folder": Path("/runs/one"),
        "milestones": Counter([1, 1, 2]),
        "score": np.float64(0.25),
        "order": OrderedDict(a=torch.Size([1])),
    }
    torch.save(content, tmp_path / "last.ckpt")
    loaded = load_tensors(tmp_path / "last.ckpt")
    assert loaded["hyper_parameters"] == {"learning_rate": 1e-4}
    assert type(loaded["hyper_parameters"]) is dict
    assert str(loaded["folder"]) == "/runs/one"
    assert loaded["milestones"] == {1: 2, 2: 1}
    assert loaded["score"] == 0.25
