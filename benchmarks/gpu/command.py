"""Training and inference on a GPU: whether they are right, what they wait for, and how fast they are.

    python -m benchmarks.gpu                              # everything, in at most 7 minutes
    python -m benchmarks.gpu --only training inference
    python -m benchmarks.gpu --dry-run                    # on the CPU at tiny sizes: does everything work?

Each part has a budget of seconds and a process of its own, and the most important measurements come first. With
``--only`` the chosen parts have the time of the others, too. After each measurement the results are on the disk, in
``gpu.json`` and as a page in ``gpu.md``; an exception is a result, too. Hugging Face's model is measured beside ours
where transformers is installed, the authors' with ``--authors``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.plan import PARTS, Part, Plan
from benchmarks.gpu.results import PAGE_FILE, Results
from benchmarks.gpu.runner import Runner

_DRY_BUDGET = 3600.0  # a CPU takes as long as it takes


def main() -> None:
    """Measure; the status is 1 if something failed or is not as it should be."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process of a part ends too
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.authors and not (arguments.authors / "src").is_dir():
        parser.error(f"--authors {arguments.authors} has no folder src: give rtdetrv2_pytorch of a checkout")
    folder = arguments.results or Path("runs", "gpu", time.strftime("%Y-%m-%d_%H-%M-%S"))
    try:
        results = Results(folder, arguments.dry_run)
    except FileExistsError as error:
        raise SystemExit(f"error: {error}") from error
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        plan = Plan(arguments.dry_run, Path(scratch), arguments.authors and arguments.authors.resolve())
        Runner(plan, results).run(chosen_parts(arguments.only, arguments.dry_run))
    bad = sum(record.is_bad for record in results.records)
    print(f"{len(results.records)} results, {bad} to look at, {time.monotonic() - began:.0f} s: {folder / PAGE_FILE}")
    sys.exit(int(bad > 0))


def chosen_parts(only: list[str] | None, dry_run: bool) -> dict[str, Part]:
    """The parts to measure, in their order, always with the card. They share the time of those that are left out."""
    chosen = {name: part for name, part in PARTS.items() if not only or name in ("card", *only)}
    more = sum(part.budget for part in PARTS.values()) / sum(part.budget for part in chosen.values())
    return {
        name: Part(part.module, _DRY_BUDGET if dry_run else round(part.budget * more)) for name, part in chosen.items()
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU at tiny sizes")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="default: a new one in runs/gpu")
    parser.add_argument(
        "--authors", type=Path, metavar="PATH", help="folder rtdetrv2_pytorch in a checkout of lyuwenyu/RT-DETR"
    )
    return parser
