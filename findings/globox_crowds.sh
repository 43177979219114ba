#!/usr/bin/env bash
# globox: crowd regions of COCO become objects, so that each detection in one counts as a false positive.
#
# Packages: globox 2.9.0, pycocotools 2.0.11, numpy 2.4.6 (some 110 MB).
# Input:    a COCO file with one person and one crowd region (iscrowd 1) of persons; five detections, of the person and,
#           with higher scores, of four persons in the crowd.
# Expected: from globox's COCOEvaluator the AP of pycocotools, which counts no detection in a crowd region for or
#           against a model: 1. A file that is read and written as COCO keeps its crowd region.
# Seen:     the crowd region is an object that nothing finds, the four detections are false positives, and in the file
#           that globox writes iscrowd is 0. The control is the same file without the crowd region and its detections:
#           AP 1 from both.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11 globox==2.9.0
cd "$folder"
"$folder/bin/python" - <<'PYTHON'
import contextlib
import io
import json
import sys
from pathlib import Path

import globox
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 80], "area": 3200, "iscrowd": 0}
crowd = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [100, 10, 200, 80], "area": 16000, "iscrowd": 1}
detections = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 80], "score": 0.5}]
in_crowd = [{"image_id": 1, "category_id": 1, "bbox": [100 + 50 * i, 10, 40, 80], "score": 0.9} for i in range(4)]


def both(annotations, found):
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "street.jpg", "width": 320, "height": 100}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    Path("truth.json").write_text(json.dumps(content))
    Path("found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO("truth.json")
        evaluation = COCOeval(truth, truth.loadRes("found.json"), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    objects = globox.AnnotationSet.from_coco("truth.json")
    predictions = objects.from_results("found.json")
    objects.save_coco("written.json", auto_ids=True)
    flags = [row["iscrowd"] for row in json.loads(Path("written.json").read_text())["annotations"]]
    return evaluation.stats[0], globox.COCOEvaluator(ground_truths=objects, predictions=predictions).ap(), flags


control = both([person], detections)
print("without the crowd: AP of pycocotools {:.4f}, of globox {:.4f}, iscrowd as written {}".format(*control))
crowded = both([person, crowd], detections + in_crowd)
print("with the crowd:    AP of pycocotools {:.4f}, of globox {:.4f}, iscrowd as written {}".format(*crowded))
right = min(control[0], control[1], crowded[0]) > 0.999 and control[2] == [0]
surprise = right and crowded[1] < 0.5 and crowded[2] == [0, 0]
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
