"""Whole checkpoints are told from broken ones."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.runs.checkpoints import damage_of, newest_whole_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for age, name in enumerate(("last", "last_previous", "best")):
        path = tmp_path / "checkpoints" / f"{name}.ckpt"
        path.parent.mkdir(exist_ok=True)
        torch.save({"weights": torch.arange(1000.0), "step": age}, path)
        os.utime(path, (1_000 - age, 1_000 - age))
    return tmp_path


def test_any_changed_byte_of_a_record_and_any_missing_end_is_found(run: Path) -> None:
    path = run / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    assert damage_of(path) is None
    draw = random.Random(0)
    first = content.index(torch.arange(1000.0).numpy().tobytes())
    for _ in range(20):
        place = first + draw.randrange(4000)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :])
        assert "checksum" in str(damage_of(path))
        assert torch.load(path)["step"] == 0  # which is why it is not enough to load a file
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert damage_of(path)


def test_broken_checkpoints_are_passed_over_and_named(run: Path) -> None:
    folder = run / "checkpoints"
    assert newest_whole_checkpoint(run) == (folder / "last.ckpt", {})
    for name in ("last", "last_previous"):
        stamp = (folder / f"{name}.ckpt").stat().st_mtime
        (folder / f"{name}.ckpt").write_bytes(b"PK half of a file")
        os.utime(folder / f"{name}.ckpt", (stamp, stamp))
    found = newest_whole_checkpoint(run)
    assert found.path == folder / "best.ckpt"
    assert [path.name for path in found.broken] == ["last.ckpt", "last_previous.ckpt"]
    assert newest_whole_checkpoint(run / "none") == (None, {})


def test_the_replaced_file_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path, previous = tmp_path / "last", tmp_path / "previous"
    for text in ("first", "second", "third"):
        atomic_save(path, lambda temporary, text=text: temporary.write_text(text), previous)
    assert (path.read_text(), previous.read_text()) == ("third", "second")
    assert sorted(tmp_path.iterdir()) == [path, previous]
