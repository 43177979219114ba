"""The objects of one XML file in Pascal VOC's format."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rtdetrv2_train.data.formats.coco_entries import flag, number
from rtdetrv2_train.data.formats.outlines import Box, box_around
from rtdetrv2_train.errors import UserError

_CHALLENGE = re.compile(r"VOC20\d\d")
_DATABASE = re.compile(r"The VOC20\d\d Database")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """One object.

    Attributes:
        label: its class.
        box: left, top, width and height in pixels, from 0; None where there is none that can be used.
        difficult: whether it does not count.
        fault: why the box cannot be used; empty where it can.
    """

    label: str
    box: Box | None
    difficult: bool = False
    fault: str = ""


class VocFile(NamedTuple):
    """What an XML file says.

    Attributes:
        image: name of the image, as written; may be empty or wrong.
        size: its height and width in pixels; None where the file does not say.
        from_one: whether it is of the VOC challenge, which counts pixels from 1.
        objects: those in the image.
    """

    image: str
    size: tuple[int, int] | None
    from_one: bool
    objects: list[VocObject]


def read_voc_file(path: Path) -> VocFile:
    """Read an XML file.

    Corners in files of the VOC challenge are pixels that belong to the object, counted from 1: its box begins at
    ``xmin - 1`` and ends at ``xmax``. Every other tool writes where the box begins and ends, from 0. ``<database>`` and
    ``<folder>`` say which it is.

    Raises:
        UserError: if it cannot be read, or is not of this format.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        line = f", line {error.position[0]}" if isinstance(error, ElementTree.ParseError) else ""
        raise UserError(
            f"'{path}'{line} is not whole XML ({error}): replace the file, or take it and its image out"
        ) from error
    if root.tag != "annotation":
        raise UserError(
            f"'{path}' is no file of Pascal VOC: it begins with <{root.tag}>, not with <annotation>; take it out"
        )
    from_one = (
        _DATABASE.fullmatch((root.findtext("source/database") or "").strip()) is not None
        or _CHALLENGE.fullmatch((root.findtext("folder") or "").strip()) is not None
    )
    objects = [_object(entry, from_one) for entry in root.iterfind("object")]
    return VocFile((root.findtext("filename") or "").strip(), _size(root), from_one, objects)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    sides = [number((root.findtext(f"size/{side}") or "").strip()) for side in ("height", "width")]
    height, width = (int(side) if side is not None and side >= 1 else 0 for side in sides)
    return (height, width) if height and width else None


def _object(entry: ElementTree.Element, from_one: bool) -> VocObject:
    """One object; what it says of its parts, such as a head, is left out."""
    label = (entry.findtext("name") or "").strip()
    difficult = flag((entry.findtext("difficult") or "0").strip())
    if not label:
        return VocObject(label, None, fault="has no name")
    if difficult is None:
        return VocObject(label, None, fault=f"has {entry.findtext('difficult')!r:.40} as difficult, neither 0 nor 1")
    bounds = entry.find("bndbox")
    if bounds is None:
        points = list(_points(entry))
        if len(points) < 2:
            return VocObject(label, None, fault="has neither a bndbox nor a polygon")
        return VocObject(label, box_around(points), difficult)
    written = [(bounds.findtext(side) or "").strip() for side in _SIDES]
    found = [_finite(side) for side in written]
    corners = [side for side in found if side is not None]
    if len(corners) < 4:
        side, text = next(
            (side, text) for side, text, value in zip(_SIDES, written, found, strict=True) if value is None
        )
        return VocObject(label, None, fault=f"has {text!r:.40} as {side}, which is no number")
    left, top, right, bottom = corners
    if from_one:
        left, top = left - 1, top - 1
    return VocObject(label, (left, top, right - left, bottom - top), difficult)


def _points(entry: ElementTree.Element) -> Iterator[tuple[float, float]]:
    """The points of a polygon: ``<x1>``, ``<y1>``, ``<x2>`` and so on, or ``<pt>`` with ``<x>`` and ``<y>``."""
    for polygon in entry.iterfind("polygon"):
        for point in polygon.iterfind("pt"):
            x, y = _finite(point.findtext("x") or ""), _finite(point.findtext("y") or "")
            if x is not None and y is not None:
                yield x, y
        for child in polygon:
            if re.fullmatch(r"x\d+", child.tag):
                x, y = _finite(child.text or ""), _finite(polygon.findtext(f"y{child.tag[1:]}") or "")
                if x is not None and y is not None:
                    yield x, y


def _finite(text: str) -> float | None:
    value = number(text.strip())
    return value if value is not None and math.isfinite(value) else None
