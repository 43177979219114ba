#!/usr/bin/env bash
# pycocotools counts the perfect detection of annotation 0 as a false positive.
#
# Packages: pycocotools 2.0.11, numpy 2.4.6.
# Input:    two objects with the annotation ids 0 and 1, each found exactly with score 0.9.
# Expected: AP 1. The COCO format asks for unique ids and does not say that they begin at 1.
# Seen:     AP 0.25. The evaluator keeps the id of the matched annotation, and reads 0 as "no match".
#           With the ids 1 and 2 the same detections have AP 1.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
"$folder/bin/python" - <<'PYTHON'
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = [[10, 10, 20, 20], [60, 10, 20, 20]]


def ap_with_ids(ids):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1, "width": 100, "height": 100}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [
                {"id": id_, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
                for id_, box in zip(ids, BOXES)
            ],
        }
        truth.createIndex()
        found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in BOXES]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


from_zero, from_one = ap_with_ids([0, 1]), ap_with_ids([1, 2])
print(f"AP with annotation ids 0 and 1: {from_zero:.4f}")
print(f"AP with annotation ids 1 and 2: {from_one:.4f}")
assert from_one == 1 and from_zero < 0.3, "the behaviour has changed"
PYTHON
