"""The page of an inspection as a reader meets it, on a desktop and on a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtdetrv2_train.data.inspection.contents import class_contents, part_contents
from rtdetrv2_train.data.inspection.recommendations import recommendations
from rtdetrv2_train.report.inspection_page import InspectedSet, write_inspection_page
from tests.data.inspection.small_sets import inspected, picture, write_set

NASTY = '</script><b title="x">&amp;'
INPUT = (640, 640)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    train = {f"{number}.jpg": picture(number) for number in range(12)} | {"gone.jpg": picture(50)}
    root = write_set(folder / "set", {"train": train, "val": {"leak.jpg": picture(3), "v.jpg": picture(60)}})
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = NASTY
    content["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [20, 30, 0, 9]})
    content["annotations"].append({**content["annotations"][4], "category_id": 2})
    content["annotations"].append({"image_id": 5, "category_id": 1, "bbox": [900, 900, 9, 9]})
    content["annotations"].append({"image_id": 77, "category_id": 1, "bbox": [9, 9, 9, 9]})
    file.write_text(json.dumps(content))
    (root / "train" / "gone.jpg").unlink()
    (root / "train" / "7.jpg").write_bytes(b"no image")
    found = inspected(root, folder / "seen")
    subject = InspectedSet(
        f"A set {NASTY}",
        found.parts,
        {part: part_contents(table, INPUT) for part, table in found.parts.items()},
        class_contents(found.parts, INPUT),
        found.findings,
        recommendations(found.parts["train"], INPUT),
        INPUT,
        {"data": str(root)},
    )
    return write_inspection_page(folder / "inspect.html", subject)


@pytest.fixture(params=[1280, 390])
def page(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Any:
    context = browser.new_context(viewport={"width": request.param, "height": 844})
    opened = context.new_page()
    opened.faults = []
    opened.requests = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("console", lambda message: opened.faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    context.close()


def test_it_fits_the_screen_and_shows_what_is_wrong(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.locator("h1").inner_text() == f"A set {NASTY}"
    levels = page.locator(".finding .badge").all_inner_texts()
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    said = page.locator("#findings").inner_text()
    for part in ("missing images", "unreadable images", "leaked copies", "no area", "outside", "contradictory boxes"):
        assert part in said
    assert NASTY in said


def test_each_finding_has_pictures_of_its_own(page: Any) -> None:
    def of(check: str) -> Any:
        return page.locator(".finding", has=page.get_by_text(check, exact=False)).first

    assert of("no area").locator("figure .box.wrong").count() == 1
    assert of("contradictory boxes").locator("figure .box.right").count() == 1
    assert of("leaked copies").locator("figcaption").inner_text() == "leak.jpg (val) · 3.jpg (train)"
    assert of("unreadable images").locator("figure").count() == 0
    assert of("unreadable images").locator("li").count() == 1
    shown = page.evaluate(
        "Promise.all([...document.querySelectorAll('figure image')].map((i) => new Promise((done) => {"
        " const p = new Image(); p.onload = () => done(p.width); p.onerror = () => done(0);"
        " p.src = i.getAttribute('href'); })))"
    )
    assert len(shown) >= 4
    assert min(shown) >= 24


def test_a_picture_opens_and_the_arrows_go_on(page: Any) -> None:
    figures = page.locator(".finding .gallery figure")
    figures.first.click()
    assert page.locator("dialog").is_visible()
    assert page.locator("dialog p").inner_text().startswith("1 of ")
    page.keyboard.press("ArrowRight")
    page.locator("#close").click()
    assert not page.locator("dialog").is_visible()


def test_classes_are_sorted_by_a_click(page: Any) -> None:
    heading = page.locator("#classes th button", has_text="boxes, train")
    heading.click()
    counts = [int(text) for text in page.locator("#classes tbody td:nth-child(3)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 3  # the nasty name, and both of the validation part


def test_a_page_without_findings_says_so(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train": {f"{number}.jpg": picture(number) for number in range(12)}})
    found = inspected(root, tmp_path / "seen")
    table = found.parts["train"]
    contents = {"train": part_contents(table, INPUT)}
    classes = class_contents(found.parts, INPUT)
    subject = InspectedSet("A", found.parts, contents, classes, found.findings, [], INPUT, {})
    text = write_inspection_page(tmp_path / "a.html", subject).read_text()
    assert "Nothing looks wrong." in text
    assert "There is no box to learn from." in text


def test_boxes_of_images_of_any_channels_are_shown(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    root = write_set(tmp_path / "set", {"train": {"a.png": picture(1), "b.png": picture(2)}})
    grey = np.asarray(cv2.cvtColor(picture(5), cv2.COLOR_RGB2GRAY))
    cv2.imwrite(str(root / "train" / "b.png"), grey)
    found = inspected(root, tmp_path / "seen")
    contents = {"train": part_contents(found.parts["train"], INPUT)}
    classes = class_contents(found.parts, INPUT)
    subject = InspectedSet("A", found.parts, contents, classes, found.findings, [], INPUT, {})
    assert "data:image/jpeg" in write_inspection_page(tmp_path / "a.html", subject).read_text()
