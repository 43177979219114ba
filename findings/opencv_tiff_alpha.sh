#!/usr/bin/env bash
# OpenCV: imread darkens the colours of a TIFF image with transparency, with IMREAD_UNCHANGED too.
#
# Packages: opencv-python-headless 5.0.0.93, pillow 13.0.0 (which writes the files), numpy 2.4.6 (some 270 MB).
# Input:    one RGBA image with 8 bits a channel, saved by Pillow as TIFF (unassociated alpha) and as PNG.
# Expected: the same array from both files, with the colours that were saved. IMREAD_UNCHANGED promises to "return
#           the loaded image as is".
# Seen:     from the TIFF file the colours are multiplied by alpha: black where it is 0, half as light at 128. libtiff's
#           RGBA interface does that, which OpenCV uses for 8 bits. So does IMREAD_COLOR, which has no alpha left to
#           divide by. The control is the PNG file, from which the colours are exact.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93 pillow==13.0.0
cd "$folder"
"$folder/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
from PIL import Image

image = np.zeros((24, 32, 4), np.uint8)
image[:] = 200, 100, 50, 255
image[:8, :, 3], image[8:16, :, 3] = 0, 128
saved = image[[4, 12, 20], 0]
print("saved, RGBA:         ", saved.tolist())
read = {}
for name in ("image.png", "image.tif"):
    Image.fromarray(image).save(name)
    assert np.array_equal(np.asarray(Image.open(name)), image), "the file is not lossless"
    unchanged = cv2.imread(name, cv2.IMREAD_UNCHANGED)[[4, 12, 20], 0][:, [2, 1, 0, 3]]
    colour = cv2.imread(name, cv2.IMREAD_COLOR)[[4, 12, 20], 0][:, ::-1]
    print(f"{name}, unchanged: ", unchanged.tolist())
    print(f"{name}, colour:    ", colour.tolist())
    read[name] = unchanged, colour
control = np.array_equal(read["image.png"][0], saved) and np.array_equal(read["image.png"][1], saved[:, :3])
multiplied = np.array([[0, 0, 0], [100, 50, 25], [200, 100, 50]])
surprise = all(np.abs(part[:, :3].astype(int) - multiplied).max() <= 1 for part in read["image.tif"])
print("as described" if control and surprise else "changed")
sys.exit(0 if control and surprise else 1)
PYTHON
