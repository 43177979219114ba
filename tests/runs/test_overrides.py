"""Paths of any name reach the configuration as they were typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rtdetrv2_train import train
from rtdetrv2_train.runs.configuration import composed
from rtdetrv2_train.runs.overrides import as_typed
from tests.running import last_line, run_command
from tests.support import write_coco

NAMES = (
    "IMG (1).jpg",
    "größe/Übung.png",
    "写真/犬.jpg",
    "a/epoch=3-step=9.ckpt",
    "a,b.jpg",
    "a~1.jpg",
    "~backup",
    "[v1]",
    "x [v1]/y.jpg",
    "{set}",
    "it's.jpg",
    "'quoted' and more",
    'say "hi".jpg',
    "back\\slash\\",
    "\\'",
    " blank at both ends ",
    "a: b, c: d",
    "a#b;c&d!e^f`g",
    "100%.jpg",
    "2024_01",
    "007",
    "1e5",
    "in/**/*.png",
    "f(x)",
    "plain/path-1.jpg",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_used_as_it_is_typed(name: str) -> None:
    with composed("predict", as_typed([f"source={name}", f"checkpoint={name}", f"output={name}"])) as config:
        assert (config.source, config.checkpoint, config.output) == (name, name, name)
    keys = ("data.root", "data.train.images", "init_from", "name", "model.pretrained", "run_folder")
    keys = keys if "[" not in name[:1] else keys[2:]  # parts of a set may be lists
    with composed("train", as_typed([f"{key}={name}" for key in keys])) as config:
        assert [config.init_from, config.name, config.model.pretrained, config.run_folder] == [name] * 4
        assert len(keys) == 4 or config.data.root == config.data.train.images == name


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("source='a b'", "source='a b'"),
        ("resume=null", "resume=null"),
        ("output=runs/${now:%Y}", "output=runs/${now:%Y}"),
        ("checkpoint=a/epoch\\=3.ckpt", "checkpoint=a/epoch\\=3.ckpt"),
        ("recipe.betas=[0.9,0.999]", "recipe.betas=[0.9,0.999]"),
        ("~callbacks.pictures", "~callbacks.pictures"),
        ("--cfg", "--cfg"),
        ("source=0", "source='0'"),
        ("+data.test.images=a b(", "+data.test.images='a b('"),
    ],
)
def test_what_hydra_understands_stays(typed: str, expected: str) -> None:
    assert as_typed([typed]) == [expected]
    assert as_typed([expected]) == [expected]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("3", ["3"]),
        ("007", ["007"]),
        ("car", ["car"]),
        ("car,bus", ["car", "bus"]),
        ("[3, 1_0]", ["3", "1_0"]),
        ("[traffic light,stop (old)]", ["traffic light", "stop (old)"]),
        ("['a, b',\"c's\",true]", ["a, b", "c's", "true"]),
        ("[größe,x=y]", ["größe", "x=y"]),
    ],
)
def test_names_stay_names_and_one_is_a_list_of_one(typed: str, names: list[str]) -> None:
    with composed("predict", as_typed([f"classes={typed}", f"class_names={typed}"])) as config:
        assert config.classes == config.class_names == names
    with composed("predict", as_typed(["classes=null", "formats=coco"])) as config:
        assert (config.classes, config.formats) == (None, ["coco"])


def test_a_sweep_over_paths_stays_one() -> None:
    assert as_typed(["-m", "init_from=a,b"]) == ["-m", "init_from=a,b"]
    assert as_typed(["init_from=a,b"]) == ["init_from='a,b'"]


def test_another_value_that_hydra_cannot_read_shows_its_quotes() -> None:
    line = last_line(run_command("predict", "device=cpu (1)", expect=2))
    assert line.startswith("error: Hydra cannot read 'device=cpu (1)': quote the value, device='cpu (1)'")


def test_commands_take_odd_paths(model_folder: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "fotos (ü)", num_images=2)
    image = shutil.copy(data / "images" / "1.png", data / "IMG (1), a=b [v1].png")
    model = shutil.copytree(model_folder, tmp_path / "my runs" / "x [v1] = ü")
    output = tmp_path / "out, 'here' (1)"
    run_command("predict", f"checkpoint={model}", f"source={image}", f"output={output}", "formats=[coco]", "device=cpu")
    assert (output / "predictions.json").is_file()
    line = last_line(run_command("export", "checkpoint=my (runs), a=b", expect=2))
    assert line.startswith("error: checkpoint 'my (runs), a=b' does not exist")


@pytest.mark.slow
def test_training_from_python_takes_odd_paths(tmp_path: Path) -> None:
    data = write_coco(tmp_path / "fotos (ü) = [1]", num_images=4)
    (data / "images").rename(data / "a, b")
    of_set = [f"data.{part}.images=a, b" for part in ("train", "val")]
    of_set += [f"data.{part}.annotations=annotations.json" for part in ("train", "val")]
    options = ("model=nano", "model.image_size=64", "trainer=cpu", "trainer.max_epochs=1", "data.num_workers=0")
    callbacks = ("~callbacks.pictures", "~callbacks.curves", "recipe.total_batch_size=4")
    folder = tmp_path / "runs (ü)" / "x = [1], it's"
    run = train(f"data.root={data}", *of_set, *options, *callbacks, f"run_folder={folder}")
    assert run.folder == folder
    run_command("eval", f"run={folder}", "trainer=cpu", f"run_folder={tmp_path / 'eval (1)'}")
    run_command("train", f"resume={folder}", "trainer.max_epochs=2")
    assert len((folder / "history.json").read_text().split('"epoch"')) == 3


def test_hydras_own_folder_is_refused_before_it_is_made(tmp_path: Path) -> None:
    line = last_line(run_command("train", "hydra.run.dir=mine", folder=tmp_path, expect=2))
    assert "give run_folder=" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.train=[a,b]", "data.train.sources=[a,b]"),
        ("data.val=my set", "data.val.sources=my set"),
        ("data.val=null", "data.val=null"),
        ("data.train={images: a, annotations: b}", "data.train={images: a, annotations: b}"),
        ("data.train.images=a", "data.train.images=a"),
    ],
)
def test_a_path_or_a_list_alone_stands_for_the_sources_of_a_part(typed: str, meant: str) -> None:
    assert as_typed([typed]) == [meant]
