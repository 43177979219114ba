"""The section with label errors as a reader meets it."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.report import label_errors
from rtdetrv2_train.report.cut_outs import reader_of
from rtdetrv2_train.report.label_errors import label_errors_section, suggestion_picture
from rtdetrv2_train.suggestion import Suggestion
from tests.support import write_coco

NASTY = "</section><b>red"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    """Ten images of 200 x 200 with one label each."""
    folder = write_coco(tmp_path_factory.mktemp("set"), 10, size=200)
    return load_annotations(folder / "annotations.json", folder / "images")


def suggestions_about(table: AnnotationTable) -> list[Suggestion]:
    """For each image one suggestion about its label, and one of a missing box."""
    made = []
    for row, box in enumerate(table.raw_boxes.tolist()):
        image_id = int(table.image_ids[table.raw_images[row]])
        beside = (box[0] + 10, box[1], box[2], box[3])
        about = Suggestion("badly placed", 0.9 - row / 20, image_id, row, "red", tuple(box), NASTY, beside, 0.75)
        made += [
            about,
            Suggestion("missing box", 0.88 - row / 20, image_id, None, None, None, "blue", (4, 4, 20, 20), 0.6),
        ]
    return made


def test_a_picture_is_a_cut_out_with_label_detection_and_the_labels_around(table: AnnotationTable) -> None:
    box = (60.0, 60.0, 40.0, 20.0)
    around = table.raw_boxes[0]
    about = Suggestion("missing box", 0.9, int(table.image_ids[0]), None, None, None, "blue", box, 0.6)
    picture = suggestion_picture(about, table, reader_of(table))
    assert (picture.width, picture.height) == (80, 60)  # half of the longer side around it
    assert picture.boxes[0]["kind"] == "wrong"
    assert picture.boxes[0]["box"] == [20, 20, 40, 20]
    pixels = np.asarray(Image.open(io.BytesIO(b64decode(picture.source.partition(",")[2]))))
    real = np.asarray(Image.open(table.path(0)))[40:100, 40:120]
    blocks = [each.reshape(6, 10, 8, 10, 3).mean(axis=(1, 3)) for each in (pixels, real)]  # noise does not survive JPEG
    assert np.abs(blocks[0] - blocks[1]).max() < 10
    inside = around[0] < 120 and around[1] < 100 and around[0] + around[2] > 40 and around[1] + around[3] > 40
    assert [drawn["kind"] for drawn in picture.boxes[1:]] == ["truth other"] * int(inside)


def test_an_image_that_cannot_be_read_has_no_picture_and_the_next_takes_its_place(tmp_path: Path) -> None:
    folder = write_coco(tmp_path, 3, size=100)
    table = load_annotations(folder / "annotations.json", folder / "images")
    table.path(0).write_bytes(b"damaged")
    section = label_errors_section(suggestions_about(table), table, "train")
    assert section.count("<figure") == 4
    assert "<b>3.</b>" in section


def test_beyond_the_first_there_are_some_of_each_kind(table: AnnotationTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "OF_EACH_KIND", 3)
    many = sorted(suggestions_about(table), key=lambda suggestion: suggestion.kind)  # all of one kind come first
    section = label_errors_section(many, table, "train", most=5)
    assert [section.count(f'figure class="picture {kind}"') for kind in ("badly-placed", "missing-box")] == [5, 3]
    assert "badly placed (10)" in section


def test_without_suggestions_it_says_so(table: AnnotationTable) -> None:
    assert "<p>None: no label is more suspicious" in label_errors_section([], table, "train")


def page_with(section: str, folder: Path) -> Path:
    css = resources.files("rtdetrv2_train.report").joinpath("templates/report.css").read_text()
    metas = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'{metas}<link rel="icon" href="data:,"><style>{css}</style>'
    path = folder / "page.html"
    path.write_text(f"<!doctype html><html lang=en><head>{head}</head><main>{section}</main></html>")
    return path


def test_a_kind_can_be_chosen_without_a_script(browser: Any, table: AnnotationTable, tmp_path: Path) -> None:
    path = page_with(label_errors_section(suggestions_about(table), table, "train"), tmp_path)
    assert not re.search(r"<script|(?:src|href)=\"(?!data:)", path.read_text())
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(path.as_uri())
    shown = page.locator(".label-errors figure:visible")
    assert shown.count() == 20
    page.get_by_role("radio", name=re.compile("missing box")).check()
    assert shown.count() == 10
    assert all("missing box" in text for text in shown.all_inner_texts())
    page.get_by_role("radio", name=re.compile("all")).check()
    assert shown.count() == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert NASTY in page.locator(".label-errors figcaption").first.inner_text()
    context.close()
