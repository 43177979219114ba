"""Labels and suggestions as tasks of Label Studio, to be corrected there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.corrections import Region, ReviewedImage, by_suspicion, reviewed_images
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.suggestion import Suggestion

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its machine from, followed by their path below its document root."""
_CONFIG_FILE = "label_studio_config.xml"
_FROM, _TO = "label", "image"


def write_label_studio(table: AnnotationTable, suggestions: Sequence[Suggestion], path: Path) -> Path:
    """Write a task for each image, the most suspicious first, and ``label_studio_config.xml`` beside it.

    The annotation of a task holds the labels as they are, with what is suspicious in the text of the regions. Its
    prediction holds them as they would be if every suggestion were right. The second file is the labeling interface of
    the project.

    Images are named as local files below the folder that holds the folder of images: start Label Studio with
    ``LOCAL_FILES_SERVING_ENABLED=true`` and ``LOCAL_FILES_DOCUMENT_ROOT`` set to that folder, and add the folder of
    images as storage of local files.

    Args:
        table: the set.
        suggestions: about it.
        path: of the JSON.

    Returns:
        ``path``.
    """
    folder = table.image_folder.resolve().name
    tasks = [_task(image, folder) for image in by_suspicion(reviewed_images(table, suggestions))]
    text = json.dumps(tasks, ensure_ascii=False)
    atomic_save(path, lambda file: file.write_text(text, encoding="utf-8"))
    config = labeling_config(table.class_names)
    atomic_save(path.with_name(_CONFIG_FILE), lambda file: file.write_text(config, encoding="utf-8"))
    return path


def labeling_config(class_names: Sequence[str]) -> str:
    """The labeling interface for boxes of some classes, as XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": _TO, "value": f"${_TO}", "zoom": "true", "zoomControl": "true"})
    labels = ElementTree.SubElement(view, "RectangleLabels", {"name": _FROM, "toName": _TO})
    for name in class_names:
        ElementTree.SubElement(labels, "Label", {"value": name})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


def _task(image: ReviewedImage, folder: str) -> dict[str, Any]:
    task: dict[str, Any] = {
        "data": {
            _TO: LOCAL_FILES + quote(f"{folder}/{image.name}"),
            "file_name": image.name,
            "suspicion": round(image.suspicion, 4),
        },
        "annotations": [{"result": [_region(image, region, f"l{i}") for i, region in enumerate(image.labels)]}],
    }
    if image.suspicion:
        result = [_region(image, region, f"p{i}") for i, region in enumerate(image.proposed)]
        prediction = {"model_version": "suggestions", "score": round(image.suspicion, 4), "result": result}
        task["predictions"] = [prediction]
    return task


def _region(image: ReviewedImage, region: Region, number: str) -> dict[str, Any]:
    left, top, right, bottom = region.box
    written: dict[str, Any] = {
        "id": f"{image.index}_{number}",
        "type": "rectanglelabels",
        "from_name": _FROM,
        "to_name": _TO,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {
            "x": 100 * left / image.width,
            "y": 100 * top / image.height,
            "width": 100 * (right - left) / image.width,
            "height": 100 * (bottom - top) / image.height,
            "rotation": 0,
            "rectanglelabels": [region.label],
        },
    }
    if region.note:
        written |= {"score": round(region.suspicion, 4), "meta": {"text": [region.note]}}
    return written
