"""A set without a validation part: one split for all ranks, for the resumed run, and for evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import TINY, WITHOUT_PICTURES, run_command, run_script
from tests.support import write_coco

pytestmark = pytest.mark.slow


def held_out(run: Path) -> list[str]:
    return json.loads((run / "split.json").read_text())["validation"]


def test_ranks_a_resumed_run_and_evaluation_share_one_split(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", num_images=20)
    run = tmp_path / "run"
    settings = [*TINY, *WITHOUT_PICTURES, f"data.root={root}", "data.val.fraction=0.3", "trainer=ddp_cpu"]
    out = run_script(
        "train.py", *settings, "trainer.devices=2", "trainer.max_epochs=1", f"run_folder={run}", folder=tmp_path
    )
    assert f"'{root}' is in COCO format: no parts in 'annotations.json'" in out
    assert "6 of 20 images are held out for validation" in out
    first = held_out(run)
    assert len(first) == 6
    (root / "images/1.png").rename(root / "images/first.png")
    content = json.loads((root / "annotations.json").read_text())
    content["images"][0]["file_name"] = "first.png"
    (root / "annotations.json").write_text(json.dumps(content))
    out = run_command("train", f"resume={run}", "trainer.max_epochs=2", "trainer=cpu")
    remaining = [name for name in first if name != "1.png"]
    assert f"{len(remaining)} images are held out, as '{run}/split.json' says" in out
    assert held_out(run) == first
    out = run_command("eval", f"run={run}", "trainer=cpu")
    assert f"{len(remaining)} images are held out, as '{run}/split.json' says" in out
