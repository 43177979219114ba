"""The report as a reader meets it: opened in a browser, sorted, slid and clicked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtdetrv2_train.evaluation.analysis.analysis import Analysis, analyse
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.report.page import Subject, write_report
from rtdetrv2_train.viz.charts import as_pixels, curve_charts, report_charts
from tests.evaluation.coco_objects import as_ground_truth
from tests.evaluation.test_coco import annotation, detections, ground_truth

NASTY = '</script><b title="x">&amp;'
NAMES = ["apple", NASTY, "pear", "never seen"]
HISTORY = [
    {"epoch": e, "val/AP": 0.1 * e, "val/AP50": 0.2 * e, "val/AP75": 0.1 * e, "loss/vfl": 3 - e, "val/loss_vfl": 3.0}
    for e in range(3)
]


def made_analysis() -> Analysis:
    """20 images with two boxes each; the second class is found worse than the first, some boxes never."""
    rng = np.random.default_rng(1)
    boxes, labels = rng.uniform(0, 200, (20, 2, 4)), rng.integers(0, 3, (20, 2))
    boxes[..., 2:] = rng.uniform(20, 80, (20, 2, 2))
    truth = ground_truth(
        list(range(20)),
        [1, 2, 3, 4],
        [
            annotation(2 * i + k + 1, i, int(labels[i, k]) + 1, boxes[i, k].tolist())
            for i in range(20)
            for k in range(2)
        ],
    )
    for category, name in zip(truth["categories"], NAMES, strict=True):
        category["name"] = name
    corners = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)
    shifted = corners + rng.normal(0, 4, corners.shape) * (1 + 3 * labels[..., None])
    found = np.concatenate([shifted, corners + 3, rng.uniform(0, 200, (20, 2, 4))], 1)
    found[:, 4:, 2:] = found[:, 4:, :2] + 30
    guesses = np.concatenate([labels, (labels + 1) % 3, labels], 1)
    scores = np.concatenate([rng.uniform(0.4, 1, (20, 2)), rng.uniform(0, 0.6, (20, 4))], 1)
    evaluator = CocoEvaluator(as_ground_truth(truth), [1, 2, 3, 4])
    evaluator.update(detections(guesses, found, scores), torch.arange(20))
    return analyse(evaluator)


def grey(image_id: int) -> np.ndarray | None:
    return None if image_id == 3 else np.full((280, 300, 3), 90 + image_id, np.uint8)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return made_analysis()


@pytest.fixture(scope="module")
def page_file(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject("A run", {"model": "nano"}, grey, {i: f"{i}.jpg" for i in range(20)}, HISTORY)
    return write_report(tmp_path_factory.mktemp("report") / "report.html", analysis, subject)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Any:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.faults = []
    opened.requests = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("console", lambda message: opened.faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


def test_the_page_is_one_small_file_that_refers_to_nothing_outside(page_file: Path) -> None:
    text = page_file.read_text()
    assert len(text) < 5_000_000
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^\s"')]+""", text)
    assert outside == []


def test_a_heading_sorts_and_sorts_the_other_way(page: Any, analysis: Analysis) -> None:
    def column() -> list[float]:
        return [
            float(v)
            for v in page.eval_on_selector_all("#class-table td:nth-child(3)", "c => c.map(x => x.dataset.value)")
        ]

    heading = page.get_by_role("button", name="AP", exact=True)
    expected = sorted((of_class.AP for of_class in analysis.metrics.per_class), reverse=True)
    heading.click()
    assert column() == pytest.approx(expected)
    heading.click()
    assert column() == pytest.approx(expected[::-1])
    page.get_by_role("button", name="class", exact=True).click()
    names = page.eval_on_selector_all("#class-table tbody th", "c => c.map(x => x.textContent)")
    assert sorted(names) == sorted(NAMES)
    assert names.index("apple") < names.index("pear")


def test_the_slider_hides_detections_and_says_what_that_costs(page: Any, analysis: Analysis) -> None:
    assert page.locator("#score-value").inner_text() == f"{analysis.threshold:.2f}"

    def visible() -> int:
        return page.locator("#image-gallery [data-score]:visible").count()

    counts = []
    for score in ("0.05", "0.5", "0.95"):
        page.locator("#score").fill(score)
        counts.append(visible())
        f1 = 100 * analysis.overall.f1[round(float(score) * 100)]
        assert f"F1 {f1:.1f} %" in page.locator("#at-threshold").inner_text()
    assert counts[0] > counts[1] > counts[2]
    assert page.locator("#image-gallery .truth:visible").count() > 0


def test_mistakes_open_and_the_arrow_keys_go_on(page: Any) -> None:
    page.get_by_role("tab", name=re.compile("classification")).click()
    page.locator("#mistake-gallery .picture").first.click()
    text = page.locator("#closer p")
    assert text.inner_text().startswith("1 of")
    page.keyboard.press("ArrowRight")
    assert text.inner_text().startswith("2 of")
    page.get_by_role("button", name="close").click()
    assert not page.locator("#closer").is_visible()


def test_a_row_brings_out_the_curves_of_its_class(page: Any) -> None:
    page.locator("#class-table tbody tr").nth(0).click()
    assert page.locator(".curve.chosen").count() == 2
    assert page.locator(".curve.class-0.chosen").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser: Any, page_file: Path, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    ink, back = (opened.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, back)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    context.close()


@pytest.mark.slow
def test_the_name_of_a_class_is_never_markup_in_charts(analysis: Analysis) -> None:
    names = ("$x_{$", "A$ 5% B$", "_hidden", r"\[/b]")
    named = replace(analysis, boxes=replace(analysis.boxes, class_names=names))
    for title, figure in curve_charts(named).items():
        (legend,) = (axes.get_legend() for axes in figure.axes)
        assert [text.get_text() for text in legend.get_texts()] == [*names[:3], "all boxes"]  # the last has no box
        assert as_pixels(figure).std() > 5
        assert all(f">{name}<" in report_charts(named, [])[title] for name in names[:3])


def test_the_curves_can_be_drawn_as_pictures(analysis: Analysis) -> None:
    for figure in curve_charts(analysis).values():
        pixels = as_pixels(figure)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 5
