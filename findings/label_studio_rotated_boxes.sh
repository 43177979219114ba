#!/usr/bin/env bash
# Label Studio's converter: boxes around rotated rectangles are wrong in COCO's format unless the image is square.
#
# Packages: label-studio-sdk 2.1.2, with numpy 2.2.6 and pandas 3.1.1 (some 500 MB).
# Input:    a rectangle of 200 x 100 pixels, turned by 90 degrees about its first corner, on an image of 400 x 400 and
#           on one of 800 x 400, as Label Studio exports it: corner and size in percent of the image.
# Expected: in both COCO files the upright box of 100 x 200 pixels that the turned rectangle fills.
# Seen:     that box on the square image, and 200 x 100 pixels on the wide one, half of it beside the object. The
#           converter turns the rectangle in percent, where a right angle is none unless width and height are the same.
#           The controls are the square image, and both without a rotation.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.2.6 pandas==3.1.1 label-studio-sdk==2.1.2
cd "$folder"
"$folder/bin/python" -W ignore - <<'PYTHON'
import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter

CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="boat"/></RectangleLabels>
</View>
"""


def converted(width, height, left, top, rotation):
    """The box in COCO's format of a rectangle of 200 x 100."""
    share = {"x": left / width, "y": top / height, "width": 200 / width, "height": 100 / height}
    value = {key: number * 100 for key, number in share.items()} | {"rotation": rotation, "rectanglelabels": ["boat"]}
    result = {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    result |= {"original_width": width, "original_height": height, "image_rotation": 0}
    task = {"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "completed_by": 1, "result": [result]}]}
    Path("tasks.json").write_text(json.dumps([task]))
    converter = Converter(CONFIG, project_dir=".", download_resources=False)
    converter.convert_to_coco("tasks.json", f"coco_{width}_{rotation}", is_dir=False)
    (row,) = json.loads(Path(f"coco_{width}_{rotation}/result.json").read_text())["annotations"]
    return [round(number) for number in row["bbox"]]


right = {}
for width, height, left, rotation in ((400, 400, 200, 0), (800, 400, 400, 0), (400, 400, 200, 90), (800, 400, 400, 90)):
    expected = [left - 100, 100, 100, 200] if rotation else [left, 100, 200, 100]
    box = converted(width, height, left, 100, rotation)
    right[width, rotation] = box == expected
    print(f"image {width} x {height}, rotation {rotation:2}: bbox {box}, expected {expected}")
surprise = not right.pop((800, 90)) and all(right.values())
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
