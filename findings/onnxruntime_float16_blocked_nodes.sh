#!/usr/bin/env bash
# ONNX Runtime's float16 converter: the result of a node that is kept in float32 is rounded to float16 all the same.
#
# Packages: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6 (some 200 MB).
# Input:    a graph of two products with float32 input and output, shares times 1 and times 4,001 pixels. The second,
#           whose result is the output, is in node_block_list, and keep_io_types is True.
# Expected: the output is the float32 product of what the first node gives; the first alone is rounded to float16.
# Seen:     it is rounded to float16 after the second product, so that pixels above 2,048 have no fractions. The
#           converter casts what a blocked node gives to float16, and back for the output. The control is the same
#           product of the same rounded share, in numpy.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

nodes = [
    helper.make_node("Mul", ["shares", "one"], ["kept"], name="model"),
    helper.make_node("Mul", ["kept", "pixels"], ["boxes"], name="scale"),
]
graph = helper.make_graph(
    nodes,
    "boxes",
    [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [3])],
    [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [3])],
    [numpy_helper.from_array(np.array([1], np.float32), "one"), numpy_helper.from_array(np.array([4001], np.float32), "pixels")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=["scale"]))
converted.topological_sort()
onnx.checker.check_model(converted.model)
session = onnxruntime.InferenceSession(converted.model.SerializeToString(), providers=["CPUExecutionProvider"])
shares = np.array([0.6, 0.7, 0.8], np.float32)
(boxes,) = session.run(None, {"shares": shares})
expected = shares.astype(np.float16).astype(np.float32) * np.float32(4001)
rounded = expected.astype(np.float16).astype(np.float32)
print("float32 product of the rounded shares", expected)
print("output of the converted graph        ", boxes)
print("that product rounded to float16      ", rounded)
surprise = bool(np.array_equal(boxes, rounded) and not np.array_equal(boxes, expected))
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
