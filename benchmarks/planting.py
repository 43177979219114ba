"""A data set of COCO's format with known faults: made-up pictures or a folder's own, and 30 faults of 15 kinds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.formats.finding import found_sources, with_part
from rtdetrv2_train.data.formats.writers import coco_content
from rtdetrv2_train.data.index import load_source
from rtdetrv2_train.data.shapes import SHAPE_NAMES, draw_shapes_image

NUM_TRAIN, NUM_VAL, WIDTH, HEIGHT, FINE = 260, 60, 240, 180, 240
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Fault:
    """What was planted, and how an inspection would say it.

    Attributes:
        kind: as the issue of an inspection is called.
        checks: names of checks, any of which finds it.
        part: that it is in.
        where: file of the image, or name of the class.
    """

    kind: str
    checks: tuple[str, ...]
    part: str
    where: str


@dataclass
class PlantedSet:
    """A set on the disk, as plain COCO.

    Attributes:
        root: its folder, with a folder of images for each part.
        parts: content of each part's file.
        faults: what was planted.
    """

    root: Path
    parts: dict[str, dict[str, Any]]
    faults: list[Fault] = field(default_factory=list)

    def write(self) -> None:
        """Write the annotation files."""
        (self.root / "annotations").mkdir(exist_ok=True)
        for part, content in self.parts.items():
            (self.root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def made_up(root: Path, seed: int = 0) -> PlantedSet:
    """Pictures of shapes, drawn as a square and stretched."""
    parts: dict[str, dict[str, Any]] = {}
    categories = [{"id": number, "name": name} for number, name in enumerate(SHAPE_NAMES, start=1)]
    for part, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        (root / part).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            picture, objects = draw_shapes_image(FINE, (seed, len(part), number))
            name = f"{part}_{number:04d}.jpg"
            stretched = np.asarray(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
            Image.fromarray(stretched).save(root / part / name, quality=92)
            images.append({"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for label, (left, top, width, height) in objects:
                down = HEIGHT / FINE
                box = [left * WIDTH / FINE, top * down, width * WIDTH / FINE, height * down]
                annotations.append({"image_id": number + 1, "category_id": label + 1, "bbox": box, "iscrowd": 0})
        parts[part] = {"images": images, "annotations": annotations, "categories": [dict(each) for each in categories]}
    return PlantedSet(root, parts)


def copied(source: Path, root: Path) -> PlantedSet:
    """The training and validation parts of a set, in whatever format, with copies of its images."""
    sources = found_sources(source)
    parts: dict[str, dict[str, Any]] = {}
    for part in ("train", "val"):
        table = load_source(with_part(sources, part)[0])  # type: ignore[arg-type]
        (root / part).mkdir(parents=True)
        names = [f"{index:06d}_{Path(name).name}" for index, name in enumerate(table.file_names.tolist())]
        for index, name in enumerate(names):
            shutil.copyfile(table.path(index), root / part / name)
        parts[part] = coco_content(table, names)
    return PlantedSet(root, parts)


def plant(planted: PlantedSet, seed: int = 0) -> None:
    """Plant two faults of each of 15 kinds, each in an image of its own, and write the set."""
    generator = np.random.default_rng(seed)
    content = planted.parts["train"]
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    usable = [
        image
        for image in content["images"]
        if _is_usable(by_image.get(image["id"], [])) and image["width"] >= 1.2 * image["height"]
    ]
    chosen = [usable[place] for place in generator.permutation(len(usable)).tolist()]
    in_corners = [image for image in chosen if _tells_corners(image, by_image[image["id"]])][:2]
    free = iter([image for image in chosen if image not in in_corners])
    for kind, (checks, change) in _IN_IMAGES.items():
        for number in range(2):
            image = in_corners[number] if kind == "corners in place of xywh" else next(free)
            change(planted, image, by_image[image["id"]], number)
            where = f"again_{image['file_name']}" if change is _copy else image["file_name"]
            planted.faults.append(Fault(kind, checks, "train", where))
    _plant_classes(planted, [next(free) for _ in range(4)], by_image)
    _plant_between(planted, next(free), next(free), by_image)
    planted.write()


def _is_usable(annotations: list[dict[str, Any]]) -> bool:
    """Whether there are boxes that can be spoilt so that it matters."""
    boxes = np.array([each["bbox"] for each in annotations if not each.get("iscrowd")]).reshape(-1, 4)
    return len(boxes) >= 2 and bool((boxes[:, 2:] >= 12).all())


def _tells_corners(image: dict[str, Any], annotations: list[dict[str, Any]]) -> bool:
    """Whether boxes as corners would be seen to be none: three, of which half would reach out as xywh."""
    boxes = np.array([each["bbox"] for each in annotations if not each.get("iscrowd")]).reshape(-1, 4)
    out = (2 * boxes[:, :2] + boxes[:, 2:] > [image["width"] + 2, image["height"] + 2]).any(axis=1)
    return len(boxes) >= 3 and 2 * int(out.sum()) >= len(boxes) and bool((boxes[:, :2] > 1).all())


Change = Callable[[PlantedSet, dict[str, Any], list[dict[str, Any]], int], None]


def _path(planted: PlantedSet, image: dict[str, Any], part: str = "train") -> Path:
    return planted.root / part / str(image["file_name"])


def _cut_short(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    path = _path(planted, image)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if number else b"no image")


def _turn_by_exif(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    path = _path(planted, image)
    exif = Image.Exif()
    exif[_ORIENTATION] = (6, 3)[number]
    with Image.open(path) as picture:
        picture.save(path, exif=exif, quality=95)


def _swap_sizes(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    image["width"], image["height"] = image["height"], image["width"]


def _leave_image(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    box = annotations[0]["bbox"]
    box[0] = image["width"] + 5 if number else image["width"] - 0.6 * box[2]


def _flatten(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    annotations[0]["bbox"][2 + number] = 0


def _double(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    again = {**annotations[0], "bbox": [side + 0.3 for side in annotations[0]["bbox"]]}
    again.pop("id", None)
    planted.parts["train"]["annotations"].append(again)


def _contradict(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    ids = [each["id"] for each in planted.parts["train"]["categories"]]
    other = next(each for each in ids if each != annotations[0]["category_id"])
    again = {**annotations[0], "category_id": other}
    again.pop("id", None)
    planted.parts["train"]["annotations"].append(again)


def _as_corners(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    for each in annotations:
        left, top, width, height = each["bbox"]
        each["bbox"] = [left, top, left + width, top + height]


def _as_shares(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    sizes = [image["width"], image["height"]] * 2
    for each in annotations:
        each["bbox"] = [side / size for side, size in zip(each["bbox"], sizes, strict=True)]


def _copy(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    """The same picture again, as the same file or saved anew."""
    _add(planted, "train", image, annotations, f"again_{image['file_name']}", _pixels(planted, image), quality=60)
    if number:
        shutil.copyfile(_path(planted, image), planted.root / "train" / f"again_{image['file_name']}")


def _deepen(planted: PlantedSet, image: dict[str, Any], annotations: list[dict[str, Any]], number: int) -> None:
    """12 bits in a file of 16."""
    path = _path(planted, image)
    grey = np.asarray(cv2.cvtColor(_pixels(planted, image), cv2.COLOR_RGB2GRAY)).astype(np.uint16) * 16
    path.unlink()
    image["file_name"] = f"deep_{path.stem}.png"
    Image.fromarray(grey).save(_path(planted, image))


_IN_IMAGES: dict[str, tuple[tuple[str, ...], Change]] = {
    "unreadable image": (("unreadable_images",), _cut_short),
    "undecided EXIF": (("undecided_exif",), _turn_by_exif),
    "swapped size": (("swapped_sizes",), _swap_sizes),
    "box out of the image": (("outside", "reaching_out"), _leave_image),
    "box of no area": (("no_area",), _flatten),
    "doubled box": (("doubled_boxes",), _double),
    "contradictory boxes": (("contradictory_boxes",), _contradict),
    "corners in place of xywh": (("boxes_as_corners",), _as_corners),
    "fractions in place of pixels": (("boxes_as_shares",), _as_shares),
    "the same image twice": (("duplicates",), _copy),
    "12 bits in a file of 16": (("flat_images", "deep_images"), _deepen),
}


def _plant_classes(
    planted: PlantedSet, images: list[dict[str, Any]], by_image: dict[int, list[dict[str, Any]]]
) -> None:
    """Classes without a box, of the same name but for case and blanks, and with a box or two only."""
    content = planted.parts["train"]
    first = max(each["id"] for each in content["categories"]) + 1
    names = [str(each["name"]) for each in content["categories"][:2]]
    empty, rare = ["no box at all", "none either"], ["once only", "twice"]
    content["categories"] += [{"id": first + k, "name": name} for k, name in enumerate(empty)]
    content["categories"] += [{"id": first + 2 + k, "name": name} for k, name in enumerate(rare)]
    same = [names[0].upper() if names[0].upper() != names[0] else names[0].lower(), f" {names[1]}"]
    content["categories"] += [{"id": first + 4 + k, "name": name} for k, name in enumerate(same)]
    for k in range(2):
        by_image[images[k]["id"]][0]["category_id"] = first + 2 + k
        spelt = [a for a in content["annotations"] if a["category_id"] == content["categories"][k]["id"]]
        for annotation in spelt[5:35]:
            annotation["category_id"] = first + 4 + k
    planted.faults += [Fault("class without a box", ("empty_classes",), "train", name) for name in empty]
    planted.faults += [Fault("names that differ in spelling", ("same_class_names",), "train", name) for name in same]
    planted.faults += [Fault("suspicious class balance", ("rare_classes",), "train", name) for name in rare]


def _plant_between(
    planted: PlantedSet, one: dict[str, Any], other: dict[str, Any], by_image: dict[int, list[dict[str, Any]]]
) -> None:
    """Images to train on, in the validation part: one saved again, one cut and brightened."""
    for image, checks, name in (
        (one, ("leaked_copies",), "leak_saved_again.jpg"),
        (other, ("leaked_near_duplicates", "leaked_copies"), "leak_cut.jpg"),
    ):
        pixels, annotations = _pixels(planted, image), by_image[image["id"]]
        if image is other:
            margin = max(2, round(min(pixels.shape[:2]) * 0.015))
            pixels = np.clip(pixels[margin:-margin, margin:-margin] * 1.1 + 6.0, 0, 255).astype(np.uint8)
            annotations = [_moved(each, margin, pixels.shape) for each in annotations]
        _add(planted, "val", image, annotations, name, pixels, quality=70)
        planted.faults.append(Fault("image of both parts", checks, "val", name))


def _moved(annotation: dict[str, Any], margin: int, shape: tuple[int, ...]) -> dict[str, Any]:
    left, top, width, height = annotation["bbox"]
    low = [max(left - margin, 0), max(top - margin, 0)]
    high = [min(left + width - margin, shape[1]), min(top + height - margin, shape[0])]
    return {**annotation, "bbox": [*low, high[0] - low[0], high[1] - low[1]]}


def _add(
    planted: PlantedSet,
    part: str,
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    name: str,
    pixels: NDArray[np.uint8],
    quality: int,
) -> None:
    content = planted.parts[part]
    number = max(each["id"] for each in content["images"]) + 1
    Image.fromarray(pixels).save(planted.root / part / name, "JPEG", quality=quality)
    height, width = pixels.shape[:2]
    content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
    for annotation in annotations:
        again = {**annotation, "image_id": number, "bbox": list(annotation["bbox"])}
        again.pop("id", None)
        content["annotations"].append(again)


def _pixels(planted: PlantedSet, image: dict[str, Any]) -> NDArray[np.uint8]:
    with Image.open(_path(planted, image)) as picture:
        return np.asarray(picture.convert("RGB"))
