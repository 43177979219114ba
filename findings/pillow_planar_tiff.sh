#!/usr/bin/env bash
# Pillow: a TIFF image with 16 bits a channel and a plane a channel is read wrong when it is not compressed.
#
# Packages: pillow 13.0.0, tifffile 2026.3.3 (which writes the files), numpy 2.4.6 (some 120 MB).
# Input:    one RGB image with 16 bits a channel, whose pixels get lighter from left to right, as three TIFF files:
#           interleaved; a plane a channel (PlanarConfiguration 2); a plane a channel, compressed with zlib.
# Expected: the same picture of 8 bits for all three, or an error.
# Seen:     no error, and another picture for the planes that are not compressed. Pillow's own decoder takes each byte
#           of a plane for a pixel: low and high bytes lie beside each other, and the right half of each row is on the
#           next row, or missing. Compressed planes go through libtiff, which reads them well. Interleaved pixels, and
#           planes with 8 bits a channel, are the controls.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$folder"
"$folder/bin/python" - <<'PYTHON'
import sys

import numpy as np
import tifffile
from PIL import Image

ramp = np.linspace(1000, 64000, 64).astype(np.uint16)
image = np.stack([np.tile(ramp, (48, 1)), np.full((48, 64), 20000, np.uint16), np.tile(ramp[::-1], (48, 1))], 2)
planes = np.ascontiguousarray(image.transpose(2, 0, 1))
expected = (image >> 8).astype(np.uint8)


def read(pixels, **options):
    tifffile.imwrite("image.tif", pixels, photometric="rgb", **options)
    if pixels.dtype == np.uint16:
        assert np.array_equal(tifffile.imread("image.tif"), pixels), "the file is not lossless"
    with Image.open("image.tif") as opened:
        return opened.mode, np.asarray(opened)


cases = {
    "interleaved": read(image, planarconfig="contig"),
    "planes, compressed": read(planes, planarconfig="separate", compression="zlib"),
    "planes of 8 bits": read((planes >> 8).astype(np.uint8), planarconfig="separate"),
    "planes": read(planes, planarconfig="separate"),
}
print(f"{'red in the first row':20} {expected[0, ::9, 0].tolist()}")
right = {}
for name, (mode, pixels) in cases.items():
    right[name] = mode == "RGB" and np.array_equal(pixels, expected)
    print(f"{name:20} {pixels[0, ::9, 0].tolist()}, {mode}, {'right' if right[name] else 'wrong'}")
surprise = list(right.values()) == [True, True, True, False]
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
