"""Labels and suggestions as "CVAT for images 1.1", to be corrected in CVAT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.corrections import Region, reviewed_images
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.suggestion import Suggestion

NOTE = "suggestion"
"""Name of the attribute in which a box says what is suspicious about it."""
_ATTRIBUTE = {"name": NOTE, "mutable": "False", "input_type": "text", "default_value": "", "values": ""}
_LABELS_FILE = "cvat_labels.json"


def write_cvat(table: AnnotationTable, suggestions: Sequence[Suggestion], path: Path) -> Path:
    """Write all labels of a set with suggestions for CVAT, and ``cvat_labels.json`` beside it.

    Suspicious labels stay as they are and say in an attribute what is suspicious about them. Missing boxes are there
    already, with the same attribute, and with ``auto`` as their source. So what CVAT exports after the correction is
    the whole set. The second file is the list of labels with that attribute, for the "Raw" tab when a task is made of
    the images; without it CVAT takes the boxes and leaves out the attribute.

    Args:
        table: the set.
        suggestions: about it.
        path: of the XML.

    Returns:
        ``path``.
    """
    root = ElementTree.Element("annotations")
    _text(root, "version", "1.1")
    labels = _text(_text(_text(root, "meta"), "task"), "labels")
    for name in table.class_names:
        label = _text(labels, "label")
        _text(label, "name", name)
        _text(label, "type", "rectangle")
        attribute = _text(_text(label, "attributes"), "attribute")
        for key, value in (
            ("name", NOTE),
            ("mutable", "False"),
            ("input_type", "text"),
            ("default_value", ""),
            ("values", ""),
        ):
            _text(attribute, key, value)
    # Old versions of CVAT go by the id instead of the name: the place among the names of a task in their order.
    for number, image in enumerate(sorted(reviewed_images(table, suggestions), key=lambda image: image.name)):
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", {"id": str(number), "name": image.name, **size})
        for region in image.labels:
            _add_box(element, region, "manual")
        for region in image.added:
            _add_box(element, region, "auto")
    ElementTree.indent(root)
    atomic_save(path, lambda file: ElementTree.ElementTree(root).write(file, "utf-8", xml_declaration=True))
    attributes = [{**_ATTRIBUTE, "mutable": False, "values": [""]}]
    content = [{"name": name, "type": "rectangle", "attributes": attributes} for name in table.class_names]
    text = json.dumps(content, ensure_ascii=False, indent=2)
    atomic_save(path.with_name(_LABELS_FILE), lambda file: file.write_text(text, encoding="utf-8"))
    return path


def _add_box(image: ElementTree.Element, region: Region, source: str) -> None:
    corners = {key: f"{value:.2f}" for key, value in zip(("xtl", "ytl", "xbr", "ybr"), region.box, strict=True)}
    values = {"label": region.label, "source": source, "occluded": "0", **corners, "z_order": "0"}
    box = ElementTree.SubElement(image, "box", values)
    attribute = ElementTree.SubElement(box, "attribute", {"name": NOTE})
    attribute.text = f"{region.suspicion:.2f} {region.note}" if region.note else ""


def _text(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = text
    return element
