"""Time from starting ``train.py`` to the end of the first optimizer step, of two checkouts in turn.

    python benchmarks/startup.py OTHER_CHECKOUT [--rounds 5]

Each checkout runs in its own ``.venv``, on the made-up shapes, which are drawn before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

FIRST_STEP = b" 1/125"  # what the progress bar shows after it
OURS = Path(__file__).resolve().parents[1]


def seconds_to_first_step(checkout: Path, data: Path) -> float:
    """Start a run, wait for its first step, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "experiment=quickstart",
            f"data.root={data}",
            "trainer.max_epochs=1",
            f"run_folder={folder}/run",
        ]
        command = [str(checkout / ".venv/bin/python"), "train.py", *overrides]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        assert process.stdout is not None
        seen = b""
        while FIRST_STEP not in seen:
            part = process.stdout.read(256)
            if not part:
                raise SystemExit(f"{checkout} ended before its first step:\n{seen.decode()[-2000:]}")
            seen += part
        seconds = time.perf_counter() - began
        process.kill()
        process.wait()
        return seconds


def main() -> None:
    """Print each round and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        seconds_to_first_step(OURS, data)
        for _ in range(arguments.rounds):
            ours, other = (seconds_to_first_step(tree.resolve(), data) for tree in (OURS, arguments.other))
            ratios.append(ours / other)
            print(f"ours {ours:.2f} s, other {other:.2f} s, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
