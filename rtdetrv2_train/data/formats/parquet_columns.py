"""Which columns of a parquet file hold images, boxes and labels, and how the classes are called."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rtdetrv2_train.errors import UserError

_IMAGES = ("image", "img", "images", "jpg", "png")
_CONTAINERS = ("objects", "annotations", "object", "annotation", "labels", "faces")
_BOXES = ("bbox", "bboxes", "boxes", "box")
_LABELS = ("category", "categories", "category_id", "category_ids", "label", "labels", "class", "classes", "class_id")
_CROWD = ("iscrowd", "is_crowd", "crowd")
_AREA = ("area", "areas")
_METADATA = b"huggingface"
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_MOST_NAMED = 8


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        image: of the images.
        container: of the objects of an image; None: each of what follows is a column of lists.
        box: of the boxes, within the container.
        label: of their labels; None where they have none.
        crowd: of what tells crowd regions; None where nothing does.
        area: of their areas in square pixels; None where there is none.
    """

    image: str
    container: str | None
    box: str
    label: str | None
    crowd: str | None
    area: str | None

    @property
    def of_labels(self) -> list[str]:
        """The columns of the file that are not of images."""
        named = (self.container,) if self.container else (self.box, self.label, self.crowd, self.area)
        return [name for name in named if name is not None]


def columns_of(schema: Any, file: Path) -> Columns:
    """The columns of a file.

    Args:
        schema: pyarrow's, of the file.
        file: for messages.

    Raises:
        UserError: if there are no images or no boxes.
    """
    names = {field.name: field.type for field in schema}
    there = f"its columns are {', '.join(map(repr, list(names)[:_MOST_NAMED]))}"
    image = next((name for name in _IMAGES if name in names and _holds_images(names[name])), None)
    if image is None:
        raise UserError(
            f"'{file}' holds no images: {there}; a column 'image' with their bytes is needed, as "
            "Dataset.to_parquet() of Hugging Face writes it"
        )
    places: list[tuple[str | None, list[str]]] = [
        (name, _inner_names(names[name])) for name in _CONTAINERS if name in names
    ]
    for container, inner in [*places, (None, list(names))]:
        box = next((name for name in _BOXES if name in inner), None)
        if box is not None:
            label, crowd, area = (
                next((name for name in wanted if name in inner and name != image), None)
                for wanted in (_LABELS, _CROWD, _AREA)
            )
            return Columns(image, container, box, label, crowd, area)
    raise UserError(f"'{file}' has no boxes: {there}; a column 'objects' with 'bbox' and 'category' is needed")


def _holds_images(kind: Any) -> bool:
    text = str(kind)
    return "binary" in text and text.startswith(("binary", "large_binary", "struct"))


def _inner_names(kind: Any) -> list[str]:
    """Names of the fields of a struct, or of those in a list."""
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return [kind.field(position).name for position in range(kind.num_fields)]


def class_names(schema: Any, label: str, file: Path) -> list[str] | None:
    """Names of the classes by their numbers; None where only numbers are known.

    Told by what Hugging Face's library writes into the file, else by ``README.md`` or ``dataset_infos.json`` beside it
    or above.

    Args:
        schema: pyarrow's, of the file.
        label: name of the column of labels.
        file: the file.
    """
    told: list[Any] = []
    written = (schema.metadata or {}).get(_METADATA)
    if written:
        told.append(_json(written.decode(errors="replace")))
    for folder in (file.parent, file.parent.parent):
        told += _descriptions(folder)
    return next((names for node in told for names in _names_below(node, label, within=False)), None)


def _descriptions(folder: Path) -> Iterator[Any]:
    for name in ("dataset_infos.json", "README.md"):
        try:
            text = (folder / name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            continue
        if name.endswith(".json"):
            yield _json(text)
        elif found := _FRONT_MATTER.search(text):
            try:
                yield yaml.safe_load(found.group(1))
            except yaml.YAMLError:
                continue


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _names_below(node: Any, label: str, within: bool) -> Iterator[list[str]]:
    """Lists of names of classes in a description, of the column of labels only."""
    if isinstance(node, dict):
        names = node.get("names")
        if within and isinstance(names, (list, dict)) and names:
            yield _in_order(names)
        within = within or node.get("name") == label
        for key, inner in node.items():
            yield from _names_below(inner, label, within or key == label)
    elif isinstance(node, list):
        for inner in node:
            yield from _names_below(inner, label, within)


def _in_order(names: list[Any] | dict[Any, Any]) -> list[str]:
    """Names, which a README has by numbers that are text."""
    if isinstance(names, list):
        return [str(name) for name in names]
    return [str(names[key]) for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else 0)]
