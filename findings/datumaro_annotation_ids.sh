#!/usr/bin/env bash
# Datumaro: annotations of a YOLO data set that is converted to COCO share ids, so that pycocotools loses boxes.
#
# Packages: datumaro 1.13.12, pycocotools 2.0.11, pandas 2.3.3, numpy 2.4.6 (some 550 MB).
# Input:    a YOLO data set of three images with two objects each, all at different places, imported and exported as
#           coco_instances with default settings.
# Expected: six annotations with six ids: an id of COCO's format is unique in its file. Boxes are the same as before.
# Seen:     six annotations, but ids 1, 2 and 3 only. Boxes of YOLO's format are counted from 0 in each image; the
#           exporter gives those with 0 a new id and keeps the others, which are 1 in each image, so even both boxes
#           of an image share an id. pycocotools keeps the last annotation of an id: it sees three of six boxes, some
#           of them for another image, and perfect detections have an AP far below 1. The controls are the same file
#           with ids counted, and an export with reindex=True, which is off by default: AP 1.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pandas==2.3.3 pycocotools==2.0.11 datumaro==1.13.12
cd "$folder"
"$folder/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import json
import sys
from pathlib import Path

import datumaro
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

source = Path("yolo")
images = source / "obj_train_data"
images.mkdir(parents=True)
for number, name in enumerate(("a", "b", "c")):
    Image.new("RGB", (100, 100)).save(images / f"{name}.png")
    rows = [f"0 {0.2 + place * 0.4 + number * 0.1} {0.2 + number * 0.3} 0.1 0.1" for place in range(2)]
    (images / f"{name}.txt").write_text("\n".join(rows) + "\n")
(source / "obj.names").write_text("cat\n")
(source / "train.txt").write_text("".join(f"data/obj_train_data/{name}.png\n" for name in "abc"))
(source / "obj.data").write_text("classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")


def convert(target, **settings):
    data = datumaro.Dataset.import_from(str(source), "yolo")
    data.export(target, "coco_instances", save_media=False, **settings)
    return json.loads(Path(target, "annotations", "instances_train.json").read_text())


def average_precision(content):
    """AP of detections that are the objects themselves, and the number of boxes that pycocotools has."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"info": {}, **content}
        truth.createIndex()
        keys = ("image_id", "category_id", "bbox")
        found = truth.loadRes([{key: row[key] for key in keys} | {"score": 0.9} for row in content["annotations"]])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], len(truth.anns)


content = convert("coco")
counted = json.loads(json.dumps(content))
for number, row in enumerate(counted["annotations"], start=1):
    row["id"] = number
results = {}
cases = {"exported": content, "ids counted": counted, "reindex=True": convert("reindexed", reindex=True)}
for name, case in cases.items():
    results[name] = average_precision(case)
    ids = [row["id"] for row in case["annotations"]]
    precision, boxes = results[name]
    print(f"{name}: ids {ids}, boxes in pycocotools {boxes}, AP of perfect detections {precision:.4f}")
control = all(results[name][0] > 0.999 and results[name][1] == 6 for name in ("ids counted", "reindex=True"))
surprise = control and len(content["annotations"]) == 6 and results["exported"][1] == 3 and results["exported"][0] < 0.9
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
