#!/usr/bin/env bash
# PyTorch: a model compiled ahead of time by AOTInductor reads a channels-last image as if it were contiguous.
#
# Packages: torch 2.14.1 (large: with CUDA some 5 GB), numpy 2.4.6; and a C++ compiler.
# Input:    x / 255, exported and packaged with a contiguous image as the example. Then the same image in two layouts:
#           contiguous and channels-last, which are equal in shape, type and values.
# Expected: the same result for both, as from the module, torch.compile and the exported program, or an error.
# Seen:     no error, and wrong values for channels-last: the strides of the example are part of the compiled code, and
#           those of the input are not looked at. With AOTI_RUNTIME_CHECK_INPUTS=1 in the environment, which is off by
#           default, it is an error. The controls are the exported program and the contiguous image.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cd "$folder"
export CUDA_VISIBLE_DEVICES="" TMPDIR="$folder" TORCHINDUCTOR_CACHE_DIR="$folder/cache"
unset AOTI_RUNTIME_CHECK_INPUTS
"$folder/bin/python" -W ignore - <<'PYTHON'
import os
import subprocess
import sys

import torch
import torch._inductor


class Scale(torch.nn.Module):
    def forward(self, image):
        return image / 255


image = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
channels_last = image.contiguous(memory_format=torch.channels_last)
assert torch.equal(image, channels_last) and image.stride() != channels_last.stride()
program = torch.export.export(Scale(), (image,))
path = torch._inductor.aoti_compile_and_package(program, package_path="scale.pt2")
package = torch._inductor.aoti_load_package(path)
wrong = {}
for name, run in (("exported program", program.module()), ("compiled package", package)):
    for layout, pixels in (("contiguous", image), ("channels-last", channels_last)):
        wrong[name, layout] = int((~torch.isclose(run(pixels), image / 255)).sum())
        print(f"{name}, {layout}: {wrong[name, layout]} of {image.numel()} values are wrong")
check = """
import torch
import torch._inductor
image = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
torch._inductor.aoti_load_package("scale.pt2")(image)
"""
environment = {**os.environ, "AOTI_RUNTIME_CHECK_INPUTS": "1"}
checked = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True)
print("with AOTI_RUNTIME_CHECK_INPUTS=1:", (checked.stderr.strip().splitlines() or ["no error"])[-1])
surprise = wrong.pop(("compiled package", "channels-last")) > 60 and not any(wrong.values())
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
