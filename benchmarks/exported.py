"""Speed of exported models, of ours and of others, in the same runtime on a CPU.

    python benchmarks/exported.py ort:ours=ours.onnx ort:optimum=optimum/model.onnx torch:r18vd
    python benchmarks/exported.py openvino:ours=ours.xml openvino:libreyolo=libreyolo/model.xml --precision as_chosen

A contender is RUNTIME:LABEL=FILE, with the runtime ``ort`` (ONNX Runtime; an ONNX file) or ``openvino`` (an IR or an
ONNX file), or ``torch:NAME``: this project's model of that name in PyTorch, norms folded, float32. All get the same
batch of one image. Contenders take turns in every round, and every round begins with another one. Ratios are to the
median of the first contender. ``exported_peers.sh`` makes the files of the other projects.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZE = 640  # of files that leave it open
PAUSE = 0.02  # seconds after a call, in which its threads stop spinning for work
PRECISIONS = {"f32": {"INFERENCE_PRECISION_HINT": "f32"}, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}, "as_chosen": {}}


def images_of(side: int) -> np.ndarray:
    """The one batch that everybody gets: smooth, as photographs are."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    channels = [np.sin(6 * rows + phase) * np.cos(9 * columns - phase) / 2 + 0.5 for phase in range(3)]
    return np.stack(channels)[None].astype(np.float32)


def input_for(name: str, shape: list[Any], dtype: type, side: int) -> np.ndarray:
    """The images, or the size of the original image, which some exported models scale their boxes to.

    Args:
        name: of the input.
        shape: of the input, with anything but a positive number where the file leaves it open.
        dtype: of the input.
        side: of the square images.
    """
    if len(shape) == 4:
        fixed = [size for size in shape[2:] if isinstance(size, int) and size > 0]
        if any(size != side for size in fixed):
            raise SystemExit(f"the input '{name}' takes images of {fixed}, not {side}: give --size")
        return images_of(side).astype(dtype)
    return np.full((1, 2), side, dtype)


def in_ort(path: str, side: int, arguments: argparse.Namespace) -> Callable[[], object]:
    """A call of an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    feed = {
        entry.name: input_for(entry.name, entry.shape, types.get(entry.type, np.float32), side)
        for entry in session.get_inputs()
    }
    return lambda: session.run(None, feed)


def in_openvino(path: str, side: int, arguments: argparse.Namespace) -> Callable[[], object]:
    """A call of an IR or an ONNX file in OpenVINO."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": arguments.threads,
        **PRECISIONS[arguments.precision],
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    feed = {}
    for index, entry in enumerate(compiled.inputs):
        shape = [size.get_length() if size.is_static else 0 for size in entry.partial_shape]
        name = next(iter(entry.names), str(index))
        feed[index] = input_for(name, shape, entry.element_type.to_dtype().type, side)
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


def in_torch(name: str, side: int, arguments: argparse.Namespace) -> Callable[[], object]:
    """A call of this project's model in PyTorch."""
    import torch

    from rtdetrv2_train.api import build_model, fuse
    from rtdetrv2_train.system.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    model = fuse(build_model(name, num_classes=80).eval())
    images = torch.from_numpy(images_of(side))

    def call() -> object:
        with torch.inference_mode():
            return model(images)

    return call


RUNTIMES = {"ort": in_ort, "openvino": in_openvino, "torch": in_torch}


def contender(text: str) -> tuple[str, str, str]:
    """Runtime, label and file of ``RUNTIME:LABEL=FILE``; of ``torch:NAME``, the name is both of the latter."""
    runtime, _, rest = text.partition(":")
    label, _, path = rest.partition("=")
    if runtime not in RUNTIMES or not rest or (runtime != "torch" and not path):
        raise argparse.ArgumentTypeError(f"'{text}' is neither RUNTIME:LABEL=FILE nor torch:NAME")
    return runtime, f"{runtime}:{label}", path or label


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round, after two calls each to warm up."""
    for call in calls.values():
        call()
        call()
    labels = list(calls)
    seconds: dict[str, list[float]] = {label: [] for label in labels}
    for number in range(rounds):
        first = number % len(labels)
        for label in labels[first:] + labels[:first]:
            time.sleep(PAUSE)
            began = time.perf_counter()
            calls[label]()
            seconds[label].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="+", type=contender, metavar="CONTENDER")
    parser.add_argument("--size", type=int, default=SIZE, help="side of the images; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=PRECISIONS, default="f32", help="what OpenVINO may calculate in")
    arguments = parser.parse_args()
    calls = {}
    for runtime, label, path in arguments.contenders:
        if label in calls:
            parser.error(f"{label} is there twice: give each a label of its own")
        calls[label] = RUNTIMES[runtime](path, arguments.size, arguments)
    seconds = measure(calls, arguments.rounds)
    first = statistics.median(next(iter(seconds.values())))
    print("| contender | median | minimum | time by the first's |\n|---|---|---|---|")
    for label, times in seconds.items():
        median = statistics.median(times)
        print(f"| {label} | {1000 * median:.1f} ms | {1000 * min(times):.1f} ms | x{median / first:.2f} |")


if __name__ == "__main__":
    main()
