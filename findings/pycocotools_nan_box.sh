#!/usr/bin/env bash
# pycocotools gives AP 1 to detections whose boxes are NaN.
#
# Packages: pycocotools 2.0.11, numpy 2.4.6.
# Input:    two objects, far from each other, and two detections with NaN for each coordinate, as a diverged model
#           predicts them.
# Expected: AP 0, or an error. NaN overlaps nothing.
# Seen:     AP 1. The evaluator skips an object "if IoU < threshold", which is false for NaN, so each detection
#           matches an object. A diverged model looks perfect.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
"$folder/bin/python" - <<'PYTHON'
import contextlib
import io
import math

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def ap_of(boxes):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": 1, "width": 100, "height": 100}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 10, 20, 20], "area": 400, "iscrowd": 0},
            ],
        }
        truth.createIndex()
        found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


wrong, nan = ap_of([[10, 60, 20, 20], [60, 60, 20, 20]]), ap_of([[math.nan] * 4, [math.nan] * 4])
print(f"AP of boxes beside the objects: {wrong:.4f}")
print(f"AP of boxes of NaN:             {nan:.4f}")
assert wrong == 0 and nan == 1, "the behaviour has changed"
PYTHON
