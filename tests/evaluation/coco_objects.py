"""Ground truth from the objects of a COCO file, for tests that write it out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rtdetrv2_train.ground_truth import GroundTruth


def as_ground_truth(content: Mapping[str, Any]) -> GroundTruth:
    """What pycocotools reads from the same objects: annotations of other images or categories do not count."""
    image_ids = np.unique(np.array([image["id"] for image in content["images"]], dtype=np.int64))
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in content["categories"]}
    category_ids = tuple(sorted(names))
    known = set(image_ids.tolist())
    kept = [a for a in content["annotations"] if a["image_id"] in known and a["category_id"] in names]
    boxes = np.array([a["bbox"] for a in kept], dtype=np.float64).reshape(-1, 4)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in kept]
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        class_names=tuple(names[number] for number in category_ids),
        images=np.searchsorted(image_ids, np.array([a["image_id"] for a in kept], dtype=np.int64)),
        classes=np.array([category_ids.index(a["category_id"]) for a in kept], dtype=np.int64),
        boxes=boxes,
        areas=np.array(areas, dtype=np.float64),
        crowd=np.array([a.get("iscrowd", 0) for a in kept], dtype=bool),
    )
