"""The demo page as a visitor uses it: drop an image, slide the threshold, compare two models."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from rtdetrv2_train import Detector, Prediction, UserError, load_detector
from rtdetrv2_train.commands.demo import _counted, demo, demo_page, launch

pytest.importorskip("gradio", reason="gradio is not installed")

_DROP = """([place, name, content]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    place.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
}"""


@pytest.fixture(scope="module")
def detector(model_folder: Path) -> Detector:
    return load_detector(model_folder, device="cpu")


@pytest.fixture(scope="module")
def address(detector: Detector) -> Iterator[str]:
    page = demo_page({"first": detector, "second": detector}, threshold=0.35)
    _, local, shared = launch(page, prevent_thread_lock=True)
    assert shared is None
    yield local
    page.close()


def test_an_image_is_dropped_the_threshold_slid_and_two_models_compared(
    browser: Any, address: str, detector: Detector, tmp_path: Path
) -> None:
    assert re.match(r"http://(127\.0\.0\.1|localhost):", address)
    image = np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "drop.png")
    content = base64.b64encode((tmp_path / "drop.png").read_bytes()).decode()
    expected = {least: len(detector.predict(image, threshold=least)) for least in (0.35, 0.4)}
    assert expected[0.35] > expected[0.4]

    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.locator("button:has(input[type=file])").first.wait_for()
    place = page.locator("button:has(input[type=file])").first.element_handle()
    page.evaluate(_DROP, [place, "drop.png", content])
    counts = page.locator("strong", has_text="objects")
    counts.nth(1).wait_for()
    assert counts.all_inner_texts() == [f"{expected[0.35]} objects"] * 2
    assert page.get_by_role("heading", name="first").is_visible()
    assert page.get_by_role("heading", name="second").is_visible()

    slider = page.locator("input[type=range]")
    for _ in range(5):  # steps of 0.01
        slider.press("ArrowRight")
    assert page.locator("input[type=number]").input_value() == "0.4"
    page.locator("strong", has_text=f"{expected[0.4]} objects").nth(1).wait_for()
    outside = [url for url in requests if not url.startswith((address.rstrip("/"), "data:", "blob:"))]
    assert outside == []
    page.close()


def test_names_of_classes_and_runs_are_no_markdown(detector: Detector) -> None:
    names = ["<b>x</b>", "*a*", "$$x_{$$", "[v](y)"]
    prediction = Prediction(np.arange(4), names, np.full(4, 0.9, np.float32), np.zeros((4, 4), np.float32))
    text = _counted(prediction, 0.5)
    assert text.startswith("**4 objects**: ")
    assert not set("<>*$[]()_") & set(text.removeprefix("**4 objects**"))
    listed = html.unescape(text.partition(": ")[2]).split(", ")
    assert sorted(listed) == sorted(f"1 {name}" for name in names)


def test_what_is_missing_is_said() -> None:
    config = {"run": None, "with": None, "device": "cpu"}
    with pytest.raises(UserError, match="no model: give run="):
        demo(OmegaConf.create(config))
