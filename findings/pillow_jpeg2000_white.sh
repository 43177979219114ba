#!/usr/bin/env bash
# Pillow: the white of a JPEG 2000 image with 16 bits a channel is read as black.
#
# Packages: pillow 13.0.0, opencv-python-headless 5.0.0.93 (which writes the file), numpy 2.4.6 (some 270 MB).
# Input:    a lossless JPEG 2000 file of an RGB image with 16 bits a channel: stripes from 0 to 65,535.
# Expected: Pillow has no RGB mode of 16 bits, so each value is scaled to 0 to 255. White stays white.
# Seen:     values from 65,408 on become 0. Pillow adds 128, shifts by 8 bits and keeps the lowest 8, so that 256 is 0:
#           an overexposed sky has black spots. The controls are the same stripes as a PNG file of 16 bits, read by
#           Pillow, and the same file, read by OpenCV.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0 opencv-python-headless==5.0.0.93
cd "$folder"
"$folder/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
from PIL import Image

values = np.array([0, 255, 32768, 65000, 65407, 65408, 65535], np.uint16)
stripes = np.broadcast_to(values.repeat(16)[:, None, None], (112, 112, 3)).copy()
for name in ("image.jp2", "image.png"):
    assert cv2.imwrite(name, stripes)
    assert np.array_equal(cv2.imread(name, cv2.IMREAD_UNCHANGED), stripes), "the file is not lossless"
read = {name: np.asarray(Image.open(name))[8::16, 56, 0] for name in ("image.jp2", "image.png")}
print("in both files, and read by OpenCV:", values.tolist())
print("PNG, read by Pillow:              ", read["image.png"].tolist())
print("JPEG 2000, read by Pillow:        ", read["image.jp2"].tolist())
control = read["image.png"].tolist() == [0, 0, 128, 253, 255, 255, 255]
surprise = control and read["image.jp2"].tolist() == [0, 1, 128, 254, 255, 0, 0]
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
