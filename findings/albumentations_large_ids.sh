#!/usr/bin/env bash
# Albumentations changes integers above 16,777,216 in the label fields of boxes.
#
# Packages: albumentations 2.0.8, numpy 2.4.6, opencv-python-headless 5.0.0.93.
# Input:    one box, and its COCO annotation id in a label field, as int64. The ids are those of crowd regions in COCO
#           2017, which have twelve digits.
# Expected: the same id beside the flipped box.
# Seen:     another id, again as int64. Label fields go through float32, which holds integers up to 2^24 exactly.
#           Whoever joins boxes and annotations by this id gets the wrong ones, or none.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93 albumentations==2.0.8
NO_ALBUMENTATIONS_UPDATE=1 "$folder/bin/python" - <<'PYTHON'
import albumentations
import numpy as np

flip = albumentations.Compose(
    [albumentations.HorizontalFlip(p=1)],
    bbox_params=albumentations.BboxParams(format="pascal_voc", label_fields=["annotation_ids"]),
)
for given, is_changed in ((16_777_216, False), (16_777_217, True), (900_100_250_282, True)):
    augmented = flip(
        image=np.zeros((100, 100, 3), np.uint8),
        bboxes=np.array([[10.0, 10.0, 20.0, 20.0]]),
        annotation_ids=np.array([given]),
    )
    (got,) = augmented["annotation_ids"]
    print(f"annotation id in: {given}, out: {got} ({got.dtype})")
    assert (got != given) == is_changed and got.dtype == np.int64, "the behaviour has changed"
PYTHON
