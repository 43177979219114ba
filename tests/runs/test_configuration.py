"""The configuration of a resumed run."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from rtdetrv2_train.runs.configuration import with_saved


def test_what_was_left_out_on_the_command_line_stays_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("callbacks: {history: {path: a}, pictures: {path: b}}\nseed: 3\n")
    config = OmegaConf.create({"callbacks": {"history": {"path": "c"}}, "seed": 0})
    joined = with_saved(config, tmp_path, ("callbacks", "seed"), ["~callbacks.pictures"])
    assert joined == {"callbacks": {"history": {"path": "a"}}, "seed": 3}
