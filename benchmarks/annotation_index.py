"""The annotation index at the size of COCO: time to build it, time to open it, and its memory.

    python benchmarks/annotation_index.py

A synthetic annotation file is written to a temporary folder. It has as many images, boxes and polygon points as COCO
train2017 (118,287 images, 860,001 boxes, some 450 MB). Each measurement runs in a new process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NUM_IMAGES, NUM_BOXES, NUM_CLASSES = 118_287, 860_001, 80
POLYGON_POINTS = 23
_AT_ONCE = 20_000

_OPEN = """
import json, resource, sys, time
from pathlib import Path
import numpy
from rtdetrv2_train.data.index import load_annotations
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
before, start, started = resident(), time.perf_counter(), time.process_time()
annotations = load_annotations(Path(sys.argv[1]), Path(sys.argv[1]).parent)
seconds, busy, after = time.perf_counter() - start, time.process_time() - started, resident()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
print(json.dumps({"seconds": seconds, "busy": busy, "grown": after - before, "resident": after, "peak": peak}))
"""

_WORKERS = """
import json, os, sys
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from rtdetrv2_train.data.index import load_annotations
def figures():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kept = {line.split(":")[0]: int(line.split()[1]) / 2**10 for line in lines}
    return torch.tensor([kept["Pss"], kept["Private_Clean"] + kept["Private_Dirty"], kept["Rss"]])
class Touch(Dataset):
    def __init__(self, annotations): self.annotations = annotations
    def __len__(self): return len(self.annotations)
    def __getitem__(self, index):
        if index < 0: return figures()
        self.annotations.targets(index)[0].sum(), self.annotations.path(index), self.annotations.heights[index]
        return torch.zeros(3)
annotations, workers = load_annotations(Path(sys.argv[1]), Path(sys.argv[1]).parent), int(sys.argv[2])
measure, warm_up = [[-1]] * workers, [[0] * 64] * 4 * workers
touch = [range(first, min(first + 64, len(annotations))) for first in range(0, len(annotations), 64)]
batches = warm_up + measure + touch + measure
loader = DataLoader(Touch(annotations), batch_sampler=batches, num_workers=workers)
rows = torch.cat(list(loader))
rows = rows[rows[:, 2] > 0]
before, after = rows[:workers].sum(0), rows[-workers:].sum(0)
print(json.dumps({"shared fairly": (after - before)[0].item(), "private": (after - before)[1].item()}))
"""


def write_coco_sized_file(path: Path, num_images: int = NUM_IMAGES, num_boxes: int = NUM_BOXES) -> None:
    """Write an annotation file with random boxes and polygons."""
    generator = np.random.default_rng(0)
    with path.open("w", encoding="ascii") as stream:
        stream.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        for number in range(num_images):
            entry = {
                "license": 1,
                "file_name": f"{number + 1:012d}.jpg",
                "coco_url": f"http://images.example.org/train2017/{number + 1:012d}.jpg",
                "height": 480,
                "width": 640,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm9.example.org/8186/{number + 1:012d}_c9a4bbf0d1_z.jpg",
                "id": number + 1,
            }
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write('], "annotations": [')
        for first in range(0, num_boxes, _AT_ONCE):
            stream.write((", " if first else "") + _some_boxes(generator, first, num_images, num_boxes))
        categories = [
            {"supercategory": "thing", "id": id_, "name": f"thing {id_}"} for id_ in range(1, NUM_CLASSES + 1)
        ]
        stream.write(f'], "categories": {json.dumps(categories)}}}')


def _some_boxes(generator: np.random.Generator, first: int, num_images: int, num_boxes: int) -> str:
    count = min(_AT_ONCE, num_boxes - first)
    corners = generator.uniform(0, 300, (count, 2)).round(2)
    sides = generator.uniform(5, 170, (count, 2)).round(2)
    polygons = (corners[:, None] + generator.random((count, POLYGON_POINTS, 2)) * sides[:, None]).round(2)
    images = generator.integers(1, num_images + 1, count).tolist()
    categories = generator.integers(1, NUM_CLASSES + 1, count).tolist()
    return ", ".join(
        json.dumps(
            {
                "segmentation": [polygon],
                "area": round(width * height / 2, 4),
                "iscrowd": 0,
                "image_id": image,
                "bbox": [left, top, width, height],
                "category_id": category,
                "id": first + number + 1,
            }
        )
        for number, (polygon, (left, top), (width, height), image, category) in enumerate(
            zip(polygons.reshape(count, -1).tolist(), corners.tolist(), sides.tolist(), images, categories, strict=True)
        )
    )


def measured(program: str, *arguments: str) -> dict[str, float]:
    """Run a program in a new process and parse the JSON that it prints."""
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_coco_sized_file(path)
        print(f"{NUM_IMAGES} images, {NUM_BOXES} boxes, {path.stat().st_size / 1e6:.0f} MB of JSON")
        builds = []
        for _ in range(arguments.rounds):
            path.touch()
            builds.append(measured(_OPEN, str(path)))
        report("first build", builds)
        report("later open", [measured(_OPEN, str(path)) for _ in range(2 * arguments.rounds)])
        for workers in (1, 4, 8):
            grown = measured(_WORKERS, str(path), str(workers))
            print(
                f"{workers} workers, every record read: {grown['shared fairly']:.0f} MB more in all "
                f"({grown['private']:.0f} MB of them private memory)"
            )


def report(name: str, figures: list[dict[str, float]]) -> None:
    """Print medians."""
    middle = {key: statistics.median(each[key] for each in figures) for key in figures[0]}
    print(
        f"{name}: {middle['seconds']:.2f} s ({middle['busy']:.2f} s of CPU time), "
        f"peak memory {middle['peak']:.0f} MB; "
        f"resident memory grew by {middle['grown']:.0f} MB (to {middle['resident']:.0f} MB)"
    )


if __name__ == "__main__":
    main()
