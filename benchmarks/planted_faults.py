"""What `rtdetrv2 inspect` finds of known faults, what it finds besides, and how long it takes.

    python benchmarks/planted_faults.py                              # 30 faults of 15 kinds among made-up images
    python benchmarks/planted_faults.py --set datasets/mine          # the same among a set's own images
    python benchmarks/planted_faults.py --images 100000              # time for so many images of 640 x 480

The set is inspected before and after the faults are planted. What is found of errors and warnings before is printed: in
made-up images all of it is false. What is found after, and was neither planted nor found before, is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.planting import Fault, copied, made_up, plant
from rtdetrv2_train.data.shapes import draw_shapes_image

_CHECKOUT = Path(__file__).resolve().parents[1]
_WIDTH, _HEIGHT, _DIFFERENT = 640, 480, 40
_FAULTS = ("error", "warning")  # notes say what is unusual, and may be right
_Items = dict[tuple[str, str], set[str]]


def main() -> None:
    """Plant and inspect, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, help="folder of a data set to plant faults in a copy of")
    parser.add_argument("--images", type=int, help="measure the time for so many made-up images instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="new folder for the set and its inspection, which stay there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        if arguments.images:
            measure(folder, arguments.images)
        else:
            compare(folder, arguments.set, arguments.seed)


def compare(folder: Path, source: Path | None, seed: int) -> None:
    """Inspect a set as it is, plant faults, inspect it again, and count."""
    root = folder / "set"
    planted = copied(source, root) if source else made_up(root, seed)
    planted.write()
    before = items_of(inspected(root, folder / "before"), _FAULTS)
    plant(planted, seed)
    findings = inspected(root, folder / "after", "fix=true")
    everything, after = items_of(findings, (*_FAULTS, "note")), items_of(findings, _FAULTS)
    found = [fault for fault in planted.faults if is_found(fault, everything)]
    for kind in dict.fromkeys(fault.kind for fault in planted.faults):
        of_kind = [fault for fault in planted.faults if fault.kind == kind]
        missed = [fault.where for fault in of_kind if fault not in found]
        print(f"{kind:32} {len(of_kind) - len(missed)} of {len(of_kind)} {', '.join(missed)}")
    print(f"found {len(found)} of {len(planted.faults)} faults")
    print(f"in the set as it was: {sum(map(len, before.values()))}")
    for (check, part), where in sorted(before.items()):
        print(f"  {check} in {part}: {', '.join(sorted(where)[:5])}")
    false = false_alarms(planted.faults, before, after)
    print(f"false alarms: {len(false)}")
    for line in false:
        print(f"  {line}")


def is_found(fault: Fault, found: _Items) -> bool:
    """Whether one of its checks names the place of a fault."""
    return any(fault.where in found.get((check, fault.part), ()) for check in fault.checks)


def inspected(root: Path, output: Path, *overrides: str) -> dict[str, Any]:
    """The findings of an inspection, in a process of its own."""
    command = [sys.executable, "-m", "rtdetrv2_train", "inspect", f"data.root={root}", f"output={output}", *overrides]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=_CHECKOUT, check=False)
    if ended.returncode not in (0, 1):
        sys.exit(ended.stdout + ended.stderr)
    print(f"inspection of {root}: exit status {ended.returncode}")
    content: dict[str, Any] = json.loads((output / "inspect.json").read_text())
    return content


def items_of(findings: dict[str, Any], levels: Sequence[str]) -> _Items:
    """What each check found in each part, of some levels: names of images, or of classes."""
    found: _Items = {}
    for finding in findings["findings"]:
        if finding["level"] not in levels:
            continue
        where = found.setdefault((finding["check"], finding["part"]), set())
        for item in finding["items"]:
            if finding["unit"] == "classes":
                where |= {item["note"]} if "note" in item else set(item["classes"])
            elif "image" in item:
                where.add(item["image"])
            else:
                where.add(item["note"].partition(":")[0])
    return found


def false_alarms(faults: list[Fault], before: _Items, after: _Items) -> list[str]:
    """What was found that was neither planted nor there before."""
    planted = {(check, fault.part, fault.where) for fault in faults for check in fault.checks}
    return [
        f"{check} in {part}: {where}"
        for (check, part), found in sorted(after.items())
        for where in sorted(found - before.get((check, part), set()))
        if (check, part, where) not in planted
    ]


def measure(folder: Path, count: int) -> None:
    """Time for many images: the first inspection, and a second one that needs no pixels."""
    root = folder / "set"
    many_images(root, count)
    for name in ("with pixels", "annotations only"):
        began = time.perf_counter()
        inspected(root, folder / "inspection")
        print(f"{name}: {time.perf_counter() - began:.1f} s for {count:,} images of {_WIDTH} x {_HEIGHT}")


def many_images(root: Path, count: int) -> None:
    """Images of which no two are alike: each shows its number as a grid of squares, over one of some pictures."""
    (root / "train").mkdir(parents=True)
    generator = np.random.default_rng(0)
    pictures = [base_picture(k, generator) for k in range(_DIFFERENT)]
    images, annotations = [], []
    for number in range(count):
        picture, objects = pictures[number % _DIFFERENT]
        cells = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        grid = np.kron(cells, np.ones((_HEIGHT // 6, _WIDTH // 8, 1), np.uint8))
        mixed = (picture.astype(np.uint16) + grid) // 2
        name = f"{number:06d}.jpg"
        Image.fromarray(mixed.astype(np.uint8)).save(root / "train" / name, quality=90)
        images.append({"id": number + 1, "file_name": name, "width": _WIDTH, "height": _HEIGHT})
        for label, (left, top, width, height) in objects:
            if top + height <= _HEIGHT / 2:
                box = [2 * left, 2 * top, 2 * width, 2 * height]
                annotations.append({"image_id": number + 1, "category_id": label + 1, "bbox": box, "iscrowd": 0})
    categories = [{"id": k, "name": f"shape {k}"} for k in (1, 2, 3)]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    size = sum(path.stat().st_size for path in (root / "train").iterdir()) / max(count, 1)
    print(f"{count:,} images of {size / 1000:.0f} kB, {shutil.disk_usage(root).free / 1e9:.0f} GB free")


def base_picture(seed: int, generator: np.random.Generator) -> tuple[NDArray[np.uint8], list[tuple[int, list[float]]]]:
    """Shapes at half the size, enlarged, with noise that makes files as large as those of photographs."""
    picture, objects = draw_shapes_image(_WIDTH // 2, (5, seed))
    large = np.kron(picture[: _HEIGHT // 2], np.ones((2, 2, 1), np.uint8))
    return np.clip(large + generator.normal(0, 16, large.shape), 0, 255).astype(np.uint8), objects


if __name__ == "__main__":
    main()
