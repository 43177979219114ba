"""``rtdetrv2 demo``: a local page to try detectors on: drop an image, slide the threshold, compare two runs."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.detector import Detector, Prediction
from rtdetrv2_train.inference.loading import load_detector
from rtdetrv2_train.runs.folder import newest_run
from rtdetrv2_train.viz.boxes import draw_detections

_LOWEST = 0.05


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Serve the page as configured."""
    demo(config)


def demo(config: DictConfig) -> None:
    """Serve the page until interrupted.

    Args:
        config: as composed from ``conf/demo.yaml``.

    Raises:
        UserError: if gradio is not installed, or there is no model.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError('the demo page needs gradio: pip install "rtdetrv2-train[demo]"')
    if not config.run:
        raise UserError("no model: give run=runs/..., and with=runs/... to compare it with another")
    sources = [str(source) for source in (config.run, config["with"]) if source]
    detectors = {_title(source): load_detector(source, device=config.device).fused() for source in sources}
    if others := [title for title, detector in detectors.items() if detector.channels != 3]:
        raise UserError(
            f"'{others[0]}' takes images of {detectors[others[0]].channels} channels, and the page shows pictures: use "
            "rtdetrv2 predict"
        )
    if len(detectors) < len(sources):
        raise UserError(f"run= and with= are the same run, '{sources[0]}': compare it with another")
    page = demo_page(detectors, detectors[_title(sources[0])].threshold)
    print_line(f"open http://{config.host}:{config.port} in a browser; end with Ctrl-C")
    launch(page, server_name=config.host, server_port=config.port, inbrowser=config.open_browser)


def launch(page: Any, **options: Any) -> Any:
    """Serve a page, on this machine only unless the options say otherwise.

    Args:
        page: of :func:`demo_page`.
        options: of gradio's ``launch``.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return page.launch(
        **{"server_name": "127.0.0.1", **options}, share=False, quiet=True, theme=_theme(), footer_links=[]
    )


def demo_page(detectors: dict[str, Detector], threshold: float) -> Any:
    """The page, not yet served.

    Args:
        detectors: one or two, by the title to show.
        threshold: where the slider stands at first.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported; nothing leaves the machine
    import gradio

    def find(image: np.ndarray | None) -> list[Prediction]:
        return [] if image is None else [d.predict(image, threshold=_LOWEST) for d in detectors.values()]

    def show(image: np.ndarray | None, found: list[Prediction], least: float) -> list[Any]:
        if image is None or not found:
            return [None, ""] * len(detectors)
        shown: list[Any] = []
        for detector, prediction in zip(detectors.values(), found, strict=True):
            shown += [_drawn(image, prediction, least, detector.class_names), _counted(prediction, least)]
        return shown

    with gradio.Blocks(title="RT-DETRv2", analytics_enabled=False) as page:
        gradio.Markdown("# RT-DETRv2\nDrop an image, or paste one, and slide the threshold.")
        found = gradio.State([])
        with gradio.Row():
            image = gradio.Image(label="image", sources=["upload", "webcam", "clipboard"], type="numpy", height=320)
            least = gradio.Slider(_LOWEST, 1, value=threshold, step=0.01, label="score at least")
        outputs: list[Any] = []
        with gradio.Row():
            for title in detectors:
                with gradio.Column():
                    gradio.Markdown(f"### {_literal(title)}")
                    picture = gradio.Image(show_label=False, interactive=False, format="png", buttons=["download"])
                    outputs += [picture, gradio.Markdown()]
        image.change(find, image, found).then(show, [image, found, least], outputs)
        least.change(show, [image, found, least], outputs, show_progress="hidden", trigger_mode="always_last")
    return page


def _drawn(image: np.ndarray, prediction: Prediction, least: float, class_names: tuple[str, ...]) -> np.ndarray:
    drawn = draw_detections(
        image, prediction.boxes, prediction.labels, prediction.scores, class_names, minimum_score=least
    )
    return np.asarray(drawn)


def _counted(prediction: Prediction, least: float) -> str:
    """How many objects of each class, the commonest first."""
    names = [name for name, score in zip(prediction.names, prediction.scores, strict=True) if score >= least]
    counts = sorted(((names.count(name), name) for name in set(names)), reverse=True)
    listed = ", ".join(f"{count} {_literal(name)}" for count, name in counts)
    return f"**{len(names)} objects**" + (f": {listed}" if listed else "")


def _literal(text: str) -> str:
    """For Markdown: a character that is written as its number is no markup."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def _theme() -> Any:
    """Gradio's own look with the fonts of the system, so that none is fetched."""
    import gradio

    return gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _title(source: str) -> str:
    path = newest_run(source) if Path(source).is_dir() else Path(source)
    return "/".join(path.parts[-2:])
