"""README and docs: every command composes, every key, link, target and message exists, and some commands run."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train import build_model
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.cli import COMMANDS
from rtdetrv2_train.runs.configuration import composed
from tests.support import ROOT, fill_with_scores, write_coco

PAGES = sorted([ROOT / "README.md", ROOT / "BENCHMARKS.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
TINY = ["model=nano", "model.image_size=[64,64]", "augment=light", "trainer=cpu", "trainer.max_epochs=1"]
TINY += ["recipe.total_batch_size=4", "data.num_workers=0"]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_KEY = re.compile(r"(?:model|data|augment|recipe|trainer|callbacks|evaluation|sweep)\.[\w.]+")


def blocks(page: Path, languages: tuple[str, ...] = ("", "bash", "sh")) -> list[str]:
    return [code for language, code in _FENCE.findall(page.read_text()) if language in languages]


def spans(page: Path) -> list[str]:
    return _SPAN.findall(_FENCE.sub("", page.read_text()))


def command_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of ours that a line calls, and what follows it."""
    for place, word in enumerate(words):
        if word in ("rtdetrv2", "rtdetrv2_train") and place + 1 < len(words) and words[place + 1] in COMMANDS:
            return words[place + 1], words[place + 2 :]
        if (
            word.removesuffix(".py") in COMMANDS
            and word.endswith(".py")
            and {"python", "torchrun"} & set(words[:place])
        ):
            return Path(word).stem, words[place + 1 :]
    return None


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Commands of ours in fenced blocks and in code spans, with their overrides."""
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += [span for span in spans(page) if re.search(r"rtdetrv2 \w|\w\.py .*=", span)]
    for line in lines:
        if "<" in line or re.match(r"#!|#SBATCH", line):  # a placeholder, or a line for SLURM
            continue
        for part in re.split(r"\s[|;&]+\s", line):
            if found := command_of(shlex.split(part.replace("--cfg job", "--cfg=job"), comments=True)):
                yield found[0], [word for word in found[1] if not word.startswith("-") and "..." not in word]


def first_of_sweep(overrides: list[str]) -> list[str]:
    """Overrides with one value, the first, for those that have several."""
    chosen = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_interval_sweep():
            chosen.append(f"{override.get_key_element()}={override.value().start}")
        elif override.is_sweep_override():
            chosen.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
        else:
            chosen.append(str(override.input_line))
    return chosen


ALL_COMMANDS = sorted({(name, *overrides) for page in PAGES for name, overrides in commands(page)})


def test_the_pages_show_every_command() -> None:
    assert {name for name, *_ in ALL_COMMANDS} == set(COMMANDS)
    assert len(ALL_COMMANDS) > 40


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=" ".join)
def test_every_command_composes(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # `resume=auto` looks at the runs that are there
    name, *overrides = command
    plain = [o for o in overrides if not o.startswith(("hydra/launcher", "hydra.launcher", "+hydra.launcher"))]
    with composed(name, first_of_sweep(plain)) as config:
        assert OmegaConf.to_container(config, resolve=True)


@cache
def settings(name: str) -> DictConfig:
    overrides = ["sweep=optuna", "trainer=ddp"] if name == "train" else []
    with composed(name, overrides) as config:
        return config.copy()


def exists(key: str) -> bool:
    missing = object()
    for name in ("train", "eval", "predict"):
        config = settings(name)
        OmegaConf.set_struct(config, False)
        OmegaConf.set_readonly(config, False)
        if OmegaConf.select(config, key, default=missing, throw_on_missing=False) is not missing:
            return True
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if isinstance(node, DictConfig) and last in node:  # a value of null
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_exists(page: Path) -> None:
    for span in spans(page):
        for word in span.split():
            key = word.partition("=")[0].lstrip("~")
            if _KEY.fullmatch(key) and not key.endswith((".py", ".md", ".yaml", ".json", ".safetensors")):
                assert exists(key), f"{page.name}: {span}"


def test_a_key_that_is_gone_is_noticed() -> None:
    assert exists("recipe.max_batch_size_per_device")
    assert exists("resume")
    assert not exists("recipe.max_device_batch_size")
    with pytest.raises(Exception, match="max_device_batch_size"), composed("train", ["recipe.max_device_batch_size=4"]):
        pass


def slug(heading: str) -> str:
    text = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"[-\s]+", "-", text).strip("-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_exists(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", target.read_text()), re.MULTILINE) if anchor else []
        assert not anchor or anchor in map(slug, headings), f"{page.name}: {link}"


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        text = "\n".join([*blocks(page), *spans(page)])
        for target in re.findall(r"^(?:\.ci/)?make ([a-z]\w*)|`make ([a-z]\w*)", text, re.MULTILINE):
            assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_every_page_is_on_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf": {re.escape(page.name)}$", site, re.MULTILINE), page.name


@cache
def texts_of_the_package() -> str:
    """Every string of the package, values put in shown as `...`."""
    found = []
    for path in (ROOT / "rtdetrv2_train").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "..." for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[.\d]*[sdgf]", "...", node.value))
    return "\n".join(found)


def messages() -> list[str]:
    """What the headings of the page on troubles quote from the log."""
    headings = re.findall(r"^##+ (.*`.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    return [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]


@pytest.mark.parametrize("message", messages())
def test_every_message_is_one_of_the_package(message: str) -> None:
    elsewhere = ("torch.OutOfMemoryError", "resume=auto")
    parts = [re.escape(part) for part in message.split("...")]
    assert message in elsewhere or re.search("[^\n]*".join(parts), texts_of_the_package())


def test_terms_are_found_where_readers_look_for_them() -> None:
    text = "\n".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("train", "distributed", "troubleshooting"))
    for term in ("EMA", "SyncBatchNorm", "Gradient checkpointing", "OOM", "NaN", "AMP", "Resume", "Preemption"):
        assert re.search(rf"^#+ .*{term}|^- \*\*{term}", text, re.MULTILINE), term


def run(*command: str, folder: Path) -> str:
    module = [sys.executable, "-m", "rtdetrv2_train", *command]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        module, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def shown(page: str, beginning: str) -> list[str]:
    """The words of the one command in a page's blocks that begins so."""
    (found,) = [
        [name, *overrides]
        for name, overrides in commands(ROOT / page)
        if " ".join([name, *overrides]).startswith(beginning)
    ]
    return found


def my_data(folder: Path) -> Path:
    """A small set where README and docs have their own data, in their layout."""
    made = write_coco(folder / "made")
    mine = folder / "datasets" / "mine"
    for split in ("train", "val"):
        shutil.copytree(made / "images", mine / split)
        shutil.copy(made / "annotations.json", mine / f"{split}.json")
    shutil.copytree(made / "images", folder / "photos")
    return folder


@pytest.mark.slow
def test_own_data_is_trained_evaluated_and_predicted_as_the_readme_says(tmp_path: Path) -> None:
    folder = my_data(tmp_path)
    run(*shown("README.md", "train model=r18vd data.root"), *TINY[1:], "model=nano", "name=r18vd", folder=folder)
    assert "AP" in run(*shown("README.md", "eval run=runs/r18vd"), "trainer=cpu", folder=folder)
    run(*shown("README.md", "predict run=runs/r18vd source=photos"), "device=cpu", folder=folder)
    (pictures,) = (folder / "runs" / "predict").glob("*/images")
    assert len(list(pictures.iterdir())) == 12


@pytest.mark.slow
def test_python_trains_as_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, library, *_ = [code for language, code in _FENCE.findall((ROOT / "docs" / "api.md").read_text())]
    folder = my_data(tmp_path)
    for name in ("street.jpg", "park.jpg"):
        shutil.copy(folder / "photos" / "1.png", folder / name)
    paths = [f"data.{s}.{k}={s}{e}" for s in ("train", "val") for k, e in (("images", ""), ("annotations", ".json"))]
    given = [text for text in [*TINY, *paths] if not text.startswith("trainer.max_epochs")]
    small = code.replace('"model=r18vd"', ", ".join(f'"{text}"' for text in given)).replace("epochs=50", "epochs=1")
    assert small.count("nano") == 1
    monkeypatch.chdir(folder)
    exec(compile(small, "api.md", "exec"), {})
    exec(compile(library, "api.md", "exec"), {})


@pytest.mark.slow
def test_a_run_is_exported_as_the_docs_say(tmp_path: Path) -> None:
    model = build_model("r18vd", num_classes=2)
    fill_with_scores(model)
    source = tmp_path / "runs" / "r18vd" / "model"
    write_model_folder(source, model.state_dict(), ModelCard(model.architecture, ("red", "blue"), (3, 7)))
    (source.parent / "config.yaml").write_text("name: r18vd\n")
    for kind, file in (("huggingface", "config.json"), ("reference", "model.pth")):
        wanted = ["run=runs/r18vd", f"format={kind}"]
        assert ("export", wanted) in list(commands(ROOT / "docs" / "export.md"))
        run("export", *wanted, folder=tmp_path)
        assert (source.parent / "export" / kind / file).is_file()
    content = torch.load(source.parent / "export" / "reference" / "model.pth", weights_only=True)
    assert "ema" in content
