"""COCO metrics of any detector, also of one in another runtime."""

from __future__ import annotations

import logging

import torch
from tqdm import tqdm

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import UnreadableImageError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.types import Detections

log = logging.getLogger(__name__)

_BATCH = 8


def collect_detections(
    detector: Detector, annotations: AnnotationTable, evaluator: CocoEvaluator, max_detections: int = 300
) -> None:
    """Detect objects in all images of a set. An image that cannot be read has none, which the log says.

    Args:
        detector: of the classes of ``annotations``.
        annotations: of the set.
        evaluator: takes the detections.
        max_detections: of each image, at most.
    """
    indices = range(len(annotations))
    for start in tqdm(range(0, len(indices), _BATCH), desc="measuring", unit="batch", leave=False):
        images, image_ids = [], []
        for index in indices[start : start + _BATCH]:
            try:
                images.append(annotations.image(index).decode()[0])
            except UnreadableImageError as error:
                log.warning(
                    "the image '%s' cannot be read (%s): nothing is found in it", annotations.path(index), error
                )
                continue
            image_ids.append(int(annotations.image_ids[index]))
        for image_id, found in zip(image_ids, detector.predict(images, 0, max_detections), strict=True):
            detections = Detections(
                labels=torch.from_numpy(found.labels)[None],
                boxes=torch.from_numpy(found.boxes)[None],
                scores=torch.from_numpy(found.scores)[None],
            )
            evaluator.update(detections, torch.tensor([image_id]))
