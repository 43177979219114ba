"""Boxes of images as they are seen, where the annotation table has those of images as they are stored."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import numpy as np

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError, read_header

logger = logging.getLogger(__name__)

# Orientations in EXIF that swap width and height: 5 to 8. Of the turned image, x is y of the stored one or counts from
# its lower border, and y is x of it or counts from its right border.
_FIRST_FROM_BELOW, _SECOND_FROM_RIGHT = (6, 7), (7, 8)


def upright(table: AnnotationTable) -> AnnotationTable:
    """The table with sizes and boxes of upright images, where they are those of images as stored and differ in size.

    Those that are square, mirrored or upside down by their EXIF stay as they are read: nothing tells which are meant.
    """
    orientations = np.ones(len(table), dtype=np.int64)
    for index in range(len(table)):
        with contextlib.suppress(UnreadableImageError):
            header = read_header(table.path(index))
            stored = (header.height, header.width)
            if table.size(index) == stored != header.upright_size:
                orientations[index] = header.orientation
    if (orientations == 1).all():
        return table
    of_boxes = orientations[table.raw_images]
    left, top, width, height = table.raw_boxes.T
    right = table.widths[table.raw_images] - left - width  # from the right border
    bottom = table.heights[table.raw_images] - top - height
    turned = np.stack(
        [
            np.where(np.isin(of_boxes, _FIRST_FROM_BELOW), bottom, top),
            np.where(np.isin(of_boxes, _SECOND_FROM_RIGHT), right, left),
            height,
            width,
        ],
        axis=1,
    )
    swapped = orientations > 1
    logger.info("boxes of %d images are turned as their EXIF says, as other software turns the images", swapped.sum())
    return replace(
        table,
        heights=np.where(swapped, table.widths, table.heights),
        widths=np.where(swapped, table.heights, table.widths),
        raw_boxes=np.where(of_boxes[:, None] > 1, turned, table.raw_boxes),
    )
