#!/usr/bin/env bash
# Albumentations drops the label column of a box array when no box is left in the image.
#
# Packages: albumentations 2.0.8, numpy 2.4.6, opencv-python-headless 5.0.0.93.
# Input:    an array [1, 5] of one box and its class: columns after the fourth are labels, and stay with their box.
# Expected: an array [0, 5] where a crop leaves no box, so that `boxes[:, 4]` is the array of classes in every image.
# Seen:     an array [0, 4], so `boxes[:, 4]` fails on such images only. An empty [0, 5] array becomes [0, 4] as well.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93 albumentations==2.0.8
NO_ALBUMENTATIONS_UPDATE=1 "$folder/bin/python" - <<'PYTHON'
import albumentations
import numpy as np

IMAGE = np.zeros((100, 100, 3), np.uint8)
ONE_BOX = np.array([[10.0, 10.0, 20.0, 20.0, 7.0]])


def shape_after_crop(boxes, x_min, y_min, x_max, y_max):
    crop = albumentations.Compose(
        [albumentations.Crop(x_min, y_min, x_max, y_max)],
        bbox_params=albumentations.BboxParams(format="pascal_voc"),
    )
    return crop(image=IMAGE, bboxes=boxes)["bboxes"].shape


kept = shape_after_crop(ONE_BOX, 0, 0, 50, 50)
lost = shape_after_crop(ONE_BOX, 50, 50, 100, 100)
empty = shape_after_crop(ONE_BOX[:0], 0, 0, 50, 50)
print(f"one box [1, 5], a crop that keeps it:    {list(kept)}")
print(f"one box [1, 5], a crop that leaves none: {list(lost)}")
print(f"no box  [0, 5]:                          {list(empty)}")
assert (kept, lost, empty) == ((1, 5), (0, 4), (0, 4)), "the behaviour has changed"
PYTHON
