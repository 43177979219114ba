#!/usr/bin/env bash
# OpenCV: imread with IMREAD_UNCHANGED makes one channel of the bands of a TIFF image, of 16 bits a mix of three.
#
# Packages: opencv-python-headless 5.0.0.93, tifffile 2026.3.3 (which writes the files), numpy 2.4.6 (some 250 MB).
# Input:    images of four bands with photometric interpretation MinIsBlack and three extra samples, as GDAL writes
#           bands of 16 bits unless it is told that they are colours; with 8 and with 16 bits.
# Expected: four channels of the same values, as IMREAD_UNCHANGED promises ("return the loaded image as is"), or
#           an error.
# Seen:     one channel. With 8 bits it is the first band. With 16 bits it is 0.299 of the first, 0.587 of the second
#           and 0.114 of the third, as if those were red, green and blue. The fourth is gone in both. The control is
#           the same array with photometric interpretation RGB and one extra sample: four channels, exact.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93 tifffile==2026.3.3
cd "$folder"
"$folder/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
import tifffile

differences = {}
for kind, top in ((np.uint8, 255), (np.uint16, 65535)):
    bands = np.random.default_rng(0).integers(0, top, (48, 64, 4), dtype=kind)
    tifffile.imwrite("rgb.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    control = cv2.imread("rgb.tif", cv2.IMREAD_UNCHANGED)
    assert np.array_equal(control, bands[..., [2, 1, 0, 3]]), "the control has changed"
    tifffile.imwrite("bands.tif", bands, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(tifffile.imread("bands.tif"), bands), "the file is not lossless"
    read = cv2.imread("bands.tif", cv2.IMREAD_UNCHANGED)
    print(f"{bands.dtype}: first pixel {bands[0, 0].tolist()}, read {read[0, 0].tolist()}, shape {read.shape}")
    if read.ndim == 2:
        mix = bands[..., :3] @ np.array([0.299, 0.587, 0.114])
        differences[kind] = np.abs(read - bands[..., 0].astype(float)).max(), np.abs(read - mix).max()
        print("greatest difference to the first band {:.0f}, to the mix of three {:.0f}".format(*differences[kind]))
surprise = len(differences) == 2 and differences[np.uint8][0] == 0 and differences[np.uint16][1] <= 3
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
