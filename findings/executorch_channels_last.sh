#!/usr/bin/env bash
# ExecuTorch: a program reads a channels-last image as if it were contiguous.
#
# Packages: executorch 1.5.1, torch 2.14.1 (large: with CUDA some 6 GB), numpy 2.4.6.
# Input:    a convolution and ReLU, exported with a contiguous image as the example. Then the same image in two layouts:
#           contiguous and channels-last, which are equal in shape, type and values.
# Expected: the same result for both, as from the module, or an error: the runtime knows the layout of each, and has an
#           error for inputs that are neither.
# Seen:     no error, and another result for channels-last: its memory is taken for that of a contiguous image. The same
#           happens the other way round. Known as pytorch/executorch#21837, open for release 1.4. The controls are the
#           images in the layout of the example.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 executorch==1.5.1
cd "$folder"
CUDA_VISIBLE_DEVICES="" "$folder/bin/python" -W ignore - <<'PYTHON'
import sys
from pathlib import Path

import torch
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()).eval()
contiguous = torch.rand(1, 3, 8, 10)
images = {"contiguous": contiguous, "channels-last": contiguous.contiguous(memory_format=torch.channels_last)}
assert torch.equal(images["contiguous"], images["channels-last"])
differences = {}
with torch.no_grad():
    expected = model(contiguous)
    for example in images:
        lowered = to_edge_transform_and_lower(torch.export.export(model, (images[example],)))
        path = Path(f"{example}.pte")
        path.write_bytes(lowered.to_executorch().buffer)
        method = Runtime.get().load_program(path).load_method("forward")
        for layout, image in images.items():
            (result,) = method.execute([image])
            differences[example, layout] = float((result - expected).abs().max())
            print(f"exported with {example}, run with {layout}: greatest difference {differences[example, layout]:.6f}")
same = [value for (example, layout), value in differences.items() if example == layout]
other = [value for (example, layout), value in differences.items() if example != layout]
surprise = max(same) < 1e-5 and min(other) > 0.1
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
