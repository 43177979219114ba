"""What CVAT's XML says of a task, and which image files are the frames of its video."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from rtdetrv2_train.data.formats.coco_entries import whole
from rtdetrv2_train.data.formats.image_files import Size, images_below
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

_FRAME = re.compile(r"frame_(\d+)")
_STEP = re.compile(r"step\s*=\s*(\d+)")
_WITHOUT_BOXES = ("tag", "points", "polyline", "skeleton", "cuboid")


@dataclass
class Meta:
    """What a file says of its task or project.

    Attributes:
        labels: names of those that can have boxes, in their order.
        size: height and width in pixels of all frames; None where it is not told.
        frames: numbers of all frames; None where they are not told.
    """

    labels: list[str] = field(default_factory=list)
    size: Size | None = None
    frames: range | None = None
    _folders: dict[str, bool] = field(default_factory=dict)

    def has_folder(self, images: Path, subset: str) -> bool:
        """Whether a subset has a folder of its own among the images."""
        if subset not in self._folders:
            self._folders[subset] = (images / subset).is_dir()
        return self._folders[subset]


def meta_of(element: ElementTree.Element) -> Meta:
    """What the element ``meta`` says."""
    labels = [
        (label.findtext("name") or "").strip()
        for label in element.iter("label")
        if label.findtext("type") not in _WITHOUT_BOXES and label.find("parent") is None
    ]
    sides = [whole(element.findtext(f".//original_size/{side}")) for side in ("height", "width")]
    size = (sides[0], sides[1]) if sides[0] and sides[1] and min(sides[0], sides[1]) > 0 else None
    start, stop = (whole(element.findtext(f".//{key}")) for key in ("start_frame", "stop_frame"))
    step = _STEP.search(element.findtext(".//frame_filter") or "")
    several = len(element.findall(".//start_frame")) > 1
    frames = None
    if start is not None and stop is not None and not several:
        frames = range(start, stop + 1, max(1, int(step.group(1)) if step else 1))
    return Meta(list(dict.fromkeys(filter(None, labels))), size, frames)


def frames_of(source: Source, meta: Meta, annotated: Collection[int], tasks: Collection[str]) -> dict[int, str]:
    """The frames of a part and the names of their images: those on disk, and those that have boxes.

    Args:
        source: the part.
        meta: what its file says.
        annotated: numbers of the frames that have boxes.
        tasks: which tasks the tracks are of.

    Raises:
        UserError: if it is not clear which image is which frame.
    """
    if len(tasks) > 1:
        raise UserError(
            f"'{source.annotations}' has tracks of {len(tasks)} tasks, whose frames have the same numbers: export each "
            "task by itself, or the project as 'CVAT for images 1.1'"
        )
    names = list(images_below(source.images))
    numbers = {name: found for name in names if (found := _FRAME.fullmatch(PurePosixPath(name).stem))}
    on_disk = {int(found.group(1)): name for name, found in numbers.items()}
    if not on_disk:
        return _by_order(source, meta, annotated, sorted(names))
    if meta.frames and (min(on_disk), max(on_disk)) == (meta.frames[0] + 1, meta.frames[-1] + 1):
        raise UserError(
            f"the frames in '{source.images}' begin with {min(on_disk)}, and those of '{source.annotations}' with "
            f"{meta.frames[0]}: extract them again with 'ffmpeg -i VIDEO -start_number {meta.frames[0]} frame_%06d.png'"
        )
    suffix = PurePosixPath(next(iter(on_disk.values()))).suffix
    known = {number for number in on_disk if meta.frames is None or number in meta.frames}
    return {number: on_disk.get(number, f"frame_{number:06d}{suffix}") for number in sorted(known | set(annotated))}


def _by_order(source: Source, meta: Meta, annotated: Collection[int], names: list[str]) -> dict[int, str]:
    """Frames of a task that was made of images, which keep their names."""
    if meta.frames is not None and len(meta.frames) == len(names) and set(annotated) <= set(meta.frames):
        logger.info("'%s': the images in '%s' are its frames in the order of their names", *_places(source))
        return dict(zip(meta.frames, names, strict=True))
    raise UserError(
        f"'{source.images}' has no frames of '{source.annotations}': export from CVAT with 'Save images', or extract "
        "them with 'ffmpeg -i VIDEO -start_number 0 frame_%06d.png'"
    )


def _places(source: Source) -> tuple[Path, Path]:
    return source.annotations, source.images
