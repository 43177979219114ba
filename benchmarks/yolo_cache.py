"""The first and a later opening of a YOLO set of the size of COCO, here and by Ultralytics.

    python benchmarks/yolo_cache.py --ultralytics /path/to/its/venv/bin/python [--images 118287] [--rounds 3]

A set is made once in ``--folder``: JPEGs of some 640 x 480 pixels, and label files with as many boxes as COCO train2017
has an image. Each measurement runs in a new process, in turn. Times are those after the imports, with the files in the
page cache. ``first``: ours reads labels and sizes into the table; Ultralytics builds its cache. ``indexed``: ours also
writes its index. ``later``: ours checks and opens the index; Ultralytics does so with its cache.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

NUM_IMAGES, BOXES_OF_IMAGE, NUM_CLASSES = 118_287, 7.27, 80
DISTINCT = 64
SIZES = ((480, 640), (640, 480), (427, 640), (375, 500))
QUALITY = 40

_OURS = """
import json, sys, time
from pathlib import Path
from rtdetrv2_train.data.formats.finding import FORMATS
from rtdetrv2_train.data.formats.yolo import FORMAT
from rtdetrv2_train.data.index import load_source
FORMATS.setdefault("yolo", FORMAT)
folder, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "indexed":
    (folder / "data.yaml").touch()
began = time.perf_counter()
(source,) = FORMAT.find(folder)
table = FORMAT.read(source, "auto") if kind == "first" else load_source(source)
seconds = time.perf_counter() - began
began = time.perf_counter()
FORMAT.state(source)
print(json.dumps({
    "seconds": seconds, "state": time.perf_counter() - began, "images": len(table), "boxes": len(table.boxes)
}))
"""

_ULTRALYTICS = """
import json, sys, time
from pathlib import Path
from ultralytics import __version__
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.data import YOLODataset
folder, kind = Path(sys.argv[1]), sys.argv[2]
cache = folder / "labels" / "train.cache"
if kind == "first":
    cache.unlink(missing_ok=True)
spent = []
build = YOLODataset.cache_labels
def timed(self, *arguments):
    began = time.perf_counter()
    result = build(self, *arguments)
    spent.append(time.perf_counter() - began)
    return result
YOLODataset.cache_labels = timed
names = {index: f"thing {index}" for index in range(80)}
began = time.perf_counter()
data = YOLODataset(
    img_path=str(folder / "images" / "train"), data={"names": names, "channels": 3}, task="detect", hyp=DEFAULT_CFG,
    augment=False, imgsz=640,
)
seconds = time.perf_counter() - began
assert bool(spent) == (kind == "first"), "the cache was not as expected"
print(json.dumps({
    "seconds": spent[0] if spent else seconds, "all": seconds, "images": len(data.labels),
    "boxes": sum(len(label["cls"]) for label in data.labels), "version": __version__,
}))
"""


def make_set(folder: Path, num_images: int) -> None:
    """Write the set, unless it is there."""
    if (folder / "data.yaml").exists():
        return
    images, labels = folder / "images" / "train", folder / "labels" / "train"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    generator = np.random.default_rng(0)
    files = [_photograph(generator, SIZES[number % len(SIZES)]) for number in range(DISTINCT)]
    for number in range(num_images):
        (images / f"{number:012d}.jpg").write_bytes(files[number % DISTINCT])
        count = min(int(generator.geometric(1 / (BOXES_OF_IMAGE + 1)) - 1), 90)
        sides = generator.uniform(0.02, 0.5, (count, 2))
        rows = np.column_stack([sides / 2 + generator.random((count, 2)) * (1 - sides), sides])
        text = "".join(
            f"{label} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
            for label, (x, y, width, height) in zip(
                generator.integers(0, NUM_CLASSES, count).tolist(), rows.tolist(), strict=True
            )
        )
        if text:
            (labels / f"{number:012d}.txt").write_text(text)
    names = "".join(f"  {index}: thing {index}\n" for index in range(NUM_CLASSES))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nnames:\n{names}")


def _photograph(generator: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A JPEG of soft shapes with the header that cameras and editors leave."""
    height, width = size
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, dpi=(72, 72))
    return content.getvalue()


def _read_all(folder: Path) -> None:
    """A system may have dropped files from its cache meanwhile."""
    for place in ("images/train", "labels/train"):
        for path in (folder / place).iterdir():
            path.read_bytes()


def measured(python: str, program: str, folder: Path, kind: str) -> dict[str, float]:
    """Run a program in a new process and parse the JSON that it prints."""
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [python, "-c", program, str(folder), kind], capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode:
        raise SystemExit(f"{python} failed:\n{result.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ultralytics", help="Python of an environment that has it; without, only ours is measured")
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the set; kept; without, a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary) / "set").resolve()
        make_set(folder, arguments.images)
        programs = {"ours": (sys.executable, _OURS, ("first", "indexed", "later"))}
        if arguments.ultralytics:
            programs["Ultralytics"] = (arguments.ultralytics, _ULTRALYTICS, ("first", "later"))
        figures: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for name, (python, program, kinds) in programs.items():
                for kind in kinds:
                    _read_all(folder)
                    figures.setdefault(f"{name}, {kind}", []).append(measured(python, program, folder, kind))
                    print(f"{name}, {kind}: {figures[f'{name}, {kind}'][-1]}", flush=True)
        report(figures)


def report(figures: dict[str, list[dict[str, float]]]) -> None:
    """Print medians and ratios."""
    middle = {name: statistics.median(each["seconds"] for each in rounds) for name, rounds in figures.items()}
    for name, seconds in middle.items():
        print(f"{name}: {seconds:.3f} s")
    print(f"ours, state alone: {statistics.median(each['state'] for each in figures['ours, later']):.3f} s")
    for kind in ("first", "later"):
        if f"Ultralytics, {kind}" in middle:
            ratio = middle[f"Ultralytics, {kind}"] / middle[f"ours, {kind}"]
            print(f"{kind}: Ultralytics takes {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
