"""What a user does with an export: write it, measure it, predict with it, and ask for what cannot be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.running import TINY, WITHOUT_PICTURES, of_set, run_command
from tests.support import write_coco

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, which has exported its untrained model at the start."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = of_set(write_coco(tmp_path_factory.mktemp("small")))
    checked = ("trainer=cpu", "trainer.max_epochs=1", "export.check=true", f"run_folder={folder}")
    output = run_command("train", *TINY, *WITHOUT_PICTURES, *data, *checked)
    assert "export: the model can be exported to onnx" in output
    return folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    output = run_command("export", f"run={run}", "verify=ap")
    folder = run / "export" / "onnx"
    assert "in ONNX Runtime" in output
    assert "use it           rtdetrv2 predict checkpoint=" in output
    card = json.loads((folder / "model.card.json").read_text())
    assert card["verified"]["AP"] == pytest.approx(card["verified"]["AP_in_pytorch"], abs=0.003)
    assert card["class_names"] == ["red", "blue"]
    return folder


def test_evaluating_an_export_gives_the_numbers_of_the_run(run: Path, exported: Path, tmp_path: Path) -> None:
    run_command("eval", f"checkpoint={exported}", "trainer=cpu", f"run_folder={tmp_path / 'eval'}")
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    expected = json.loads((run / "metrics.json").read_text())
    assert found["AP"] == pytest.approx(expected["AP"], abs=0.003)
    assert "ONNX Runtime" in (tmp_path / "eval" / "report.html").read_text()


def test_predicting_with_an_export_gives_the_objects_of_the_run(run: Path, exported: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 50), (200, 30, 30)).save(tmp_path / "a.png")
    rows = {}
    for name, model in (("run", f"run={run}"), ("export", f"checkpoint={exported / 'model.onnx'}")):
        output = tmp_path / name
        run_command(
            "predict", model, f"source={tmp_path / 'a.png'}", f"output={output}", "formats=[coco]", "threshold=0"
        )
        rows[name] = json.loads(next(output.glob("*.json")).read_text())
    best = [max(found, key=lambda row: row["score"]) for found in rows.values()]
    assert best[0]["bbox"] == pytest.approx(best[1]["bbox"], abs=0.05)
    assert best[0]["score"] == pytest.approx(best[1]["score"], abs=1e-3)


def test_an_end_to_end_export_says_how_fast_its_model_is(run: Path, tmp_path: Path) -> None:
    run_command("export", f"run={run}", "graph=end_to_end", f"output={tmp_path / 'whole'}")
    for name in "ab":
        Image.new("RGB", (70, 50), (200, 30, 30)).save(tmp_path / f"{name}.png")
    settings = (f"source={tmp_path}/*.png", f"output={tmp_path / 'out'}", "formats=[csv]")
    output = run_command("predict", f"checkpoint={tmp_path / 'whole' / 'model.onnx'}", *settings)
    whole, alone = map(float, re.findall(r"([\d.e+]+) images a second with .* alone ([\d.e+]+)", output)[0])
    assert whole <= alone < 1e5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=onx"], "there is no format=onx: did you mean 'onnx'?"),
        (["precision=int4"], "precision=int4: did you mean 'int8'? use float32 or float16 or int8"),
        (["graph=end_to_end", "format=litert"], "format=litert resizes no images: use graph=raw"),
        (["format=pt2", "precision=int8"], "format=pt2 cannot have precision=int8: use float32, or format=onnx"),
        (["format=openvino", "opset=20"], "opset=20 has no effect on format=openvino: leave it out"),
        (["opset=new"], "opset is 'new': give a whole number"),
        (["size=[100,100]"], "size=[100, 100]: height and width must be multiples of 32"),
        (["format=huggingface", "precision=int8"], "precision= has no effect on format=huggingface: leave it out"),
    ],
)
def test_what_cannot_be_exported_is_one_line(run: Path, overrides: list[str], message: str) -> None:
    output = run_command("export", f"run={run}", *overrides, expect=2)
    assert message in output
    assert "Traceback" not in output


def test_int8_without_images_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    settings = (f"checkpoint={tmp_path / 'elsewhere'}", f"output={tmp_path / 'out'}", "precision=int8")
    output = run_command("export", *settings, expect=2)
    assert "precision=int8 is calibrated on images: give images=FOLDER, or run= with its data set" in output


def test_settings_of_the_export_are_not_taken_again(exported: Path, tmp_path: Path) -> None:
    output = run_command("eval", f"checkpoint={exported}", "data.image_size=[96,96]", expect=2)
    assert "data.image_size has no effect on the exported model" in output
    Image.new("RGB", (70, 50)).save(tmp_path / "a.png")
    output = run_command("predict", f"checkpoint={exported}", f"source={tmp_path}", "device=cuda:0", expect=2)
    assert "device has no effect on the exported model" in output
    output = run_command("predict", f"checkpoint={exported}", f"source={tmp_path}", "half=true", expect=2)
    assert "half has no effect on the exported model" in output
    output = run_command("export", f"checkpoint={exported}", f"output={tmp_path / 'again'}", expect=2)
    assert "an exported model is no PyTorch model" in output
