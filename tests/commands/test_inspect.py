"""``rtdetrv2 inspect`` as a user meets it: exit status, page, findings, new annotations, and an end in the middle."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.data.inspection.small_sets import picture, write_set
from tests.running import TINY, WITHOUT_PICTURES, last_line, run_command, start_script
from tests.support import write_coco


def pictures(count: int, first: int = 0) -> dict[str, Any]:
    return {f"{number}.jpg": picture(number) for number in range(first, first + count)}


@pytest.fixture
def faulty_set(tmp_path: Path) -> Path:
    """A set with a copy between its parts, a doubled box and a broken one."""
    val = pictures(4, 20) | {"leak.jpg": picture(3)}
    root = write_set(tmp_path / "mine", {"train": pictures(12), "val": val})
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"].append(dict(content["annotations"][0]))
    content["annotations"].append({"image_id": 2, "category_id": 1, "bbox": [5, 5, 0, 9]})
    file.write_text(json.dumps(content))
    return root


def test_a_clean_set_gives_status_0_and_says_so(tmp_path: Path) -> None:
    root = write_set(tmp_path / "mine", {"train": pictures(12), "val": pictures(12, 20)})
    output = run_command("inspect", f"data.root={root}", folder=tmp_path)
    assert "nothing looks wrong" in output
    found = json.loads((tmp_path / "inspections" / "mine" / "inspect.json").read_text())
    assert found["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert found["parts"]["train"]["images"] == 12
    assert {row["name"]: row["boxes"] for row in found["classes"]} == {
        "cat": {"train": 12, "val": 12},
        "dog": {"train": 12, "val": 12},
    }
    assert [each["key"] for each in found["recommendations"]] == ["model", "model.image_size"]


def test_errors_give_status_1_and_stand_in_page_and_findings(faulty_set: Path, tmp_path: Path) -> None:
    output = run_command("inspect", f"data.root={faulty_set}", f"output={tmp_path / 'out'}", expect=1)
    assert "error    val     leaked_copies: 1 image of 5 trained on, too" in output
    assert "the same with fix=true" in output
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    by_check = {each["check"]: each for each in found["findings"]}
    assert by_check["leaked_copies"]["items"] == [{"image": "leak.jpg", "other_image": "3.jpg", "other_part": "train"}]
    doubled = by_check["doubled_boxes"]["items"][0]
    assert (doubled["image"], doubled["classes"], len(doubled["boxes"])) == ("0.jpg", ["cat", "cat"], 2)
    assert found["fixed"] is None
    page = (tmp_path / "out" / "inspect.html").read_text()
    assert "leaked copies" in page
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_fix_writes_new_annotations_that_train(faulty_set: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in faulty_set.rglob("*") if path.is_file()}
    settings = [f"data.root={faulty_set}", f"output={tmp_path / 'out'}", "model=nano", "fix=true"]
    output = run_command("inspect", *settings, expect=1)
    assert {path: path.read_bytes() for path in before} == before
    line = next(line for line in output.splitlines() if line.startswith("train with"))
    command = line.partition("rtdetrv2 train ")[2].split()
    assert command[:2] == ["model=nano", f"data.root={faulty_set}"]
    fixed = json.loads((tmp_path / "out" / "inspect.json").read_text())["fixed"]
    assert fixed["train"]["changes"] == {
        "boxes of no area removed": 1,
        "second boxes of an object removed": 1,
        "images left out that are evaluated on, too": 1,
    }
    written = Path(fixed["train"]["annotations"])
    assert len(json.loads(written.read_text())["images"]) == 11
    run_command("inspect", *settings, expect=1)
    assert written.with_name("train.json").exists()
    assert (tmp_path / "out" / "fixed_2" / "train.json").read_bytes() == written.read_bytes()
    small = [*TINY, *WITHOUT_PICTURES, "trainer=cpu", "trainer.max_epochs=1", f"run_folder={tmp_path / 'run'}"]
    trained = run_command("train", *command, *small)
    assert "11 images (0 without a box), 22 boxes" in trained
    again = run_command("inspect", *command, f"output={tmp_path / 'again'}")
    assert "leaked" not in again


def test_a_run_brings_its_model_and_its_data(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", num_images=12)
    small = [*TINY, *WITHOUT_PICTURES, "trainer=cpu", "trainer.max_epochs=1", "data.val.fraction=0.3"]
    run_command("train", *small, f"data.root={root}", f"run_folder={tmp_path / 'run'}")
    output = run_command("inspect", f"run={tmp_path / 'run'}", f"output={tmp_path / 'out'}")
    assert "12 images, 12 boxes of 2 classes" in output
    assert json.loads((tmp_path / "out" / "inspect.json").read_text())["image_size"] == [64, 64]


def test_what_cannot_be_read_gives_the_line_of_training(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = write_set(tmp_path / "broken", {"train": pictures(2)})
    (broken / "annotations" / "instances_train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    gone = write_set(tmp_path / "gone", {"train": pictures(2)})
    for path in (gone / "train").iterdir():
        path.unlink()
    for root in (tmp_path / "nowhere", empty, broken, gone):
        settings = [f"data.root={root}", "data.num_workers=0"]
        said = [
            last_line(run_command(name, *settings, *more, expect=2, folder=tmp_path))
            for name, more in (("inspect", ()), ("train", (*TINY, "trainer=cpu")))
        ]
        assert said[0] == said[1]
        assert said[0].startswith("error: ")


def test_a_folder_of_something_else_or_somebody_else_is_refused(faulty_set: Path, tmp_path: Path) -> None:
    settings = [f"data.root={faulty_set}", f"output={faulty_set}"]
    message = last_line(run_command("inspect", *settings, expect=2))
    assert message == f"error: '{faulty_set}' is there already and holds no inspection: give output= another folder"
    with FileLock(tmp_path / "busy" / ".lock"):
        message = last_line(run_command("inspect", settings[0], f"output={tmp_path / 'busy'}", expect=2))
        assert message.startswith(f"error: another process works in '{tmp_path / 'busy'}': wait")
    message = last_line(run_command("inspect", settings[0], "fix=maybe", expect=2))
    assert message == "error: fix is 'maybe': give true or false"


@pytest.mark.slow
def test_a_killed_inspection_continues_where_it_was(tmp_path: Path) -> None:
    count = 400
    root = write_set(tmp_path / "mine", {"train": {f"{k}.jpg": picture(k, 900, 700) for k in range(count)}})
    for attempt in range(10):  # a busy machine may look at all images before the signal is sent
        output = tmp_path / f"out_{attempt}"
        settings = [f"data.root={root}", f"output={output}"]
        seen = output / ".images_seen"
        with start_script("-m rtdetrv2_train", "inspect", *settings, folder=tmp_path) as process:
            while process.poll() is None and not (seen.exists() and seen.stat().st_size > 20_000):
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
        if process.returncode == -signal.SIGKILL and seen.read_bytes().count(b".jpg") < count:
            break
    assert not (output / "inspect.json").exists()
    known = seen.stat().st_size
    said = run_command("inspect", *settings)
    continued = next(line for line in said.splitlines() if line.startswith("continued"))
    assert 0 < int(continued.split()[1].replace(",", "")) < count
    assert seen.stat().st_size > known
    findings = json.loads((output / "inspect.json").read_text())
    whole = [f"data.root={root}", f"output={tmp_path / 'whole'}"]
    run_command("inspect", *whole)
    assert json.loads((tmp_path / "whole" / "inspect.json").read_text()) == findings
