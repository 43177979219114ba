"""Interrupt training runs at random moments, resume them, and compare the final state with an uninterrupted run.

Each run is the command ``python train.py ... resume=auto``, repeated after each fault until the run is complete. Faults
are ``kill -9`` of all ranks, of all ranks while a checkpoint is being written, and of one rank; preemption by SIGTERM;
Ctrl-C; a damaged last.ckpt; and a full disk, which is a small tmpfs that only root can mount. After every fourth fault
the run's folder is moved before it is resumed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [
    "model=nano",
    "model.image_size=[64,64]",
    "data=shapes",
    "data.num_train=96",
    "data.num_val=16",
    "data.num_workers=0",
    "augment=light",
    "recipe.total_batch_size=8",
    "trainer.max_epochs=3",
    "callbacks.checkpoint.last_every_steps=2",
    "~callbacks.pictures",
    "logger=csv",
    "name=interrupted",
    "resume=auto",
]
CHECKPOINTS = "runs/interrupted/*/checkpoints"
PATIENCE = 60.0  # seconds for all ranks to end after a fault; longer counts as a hang


@dataclass
class Run:
    """One launch of a run: its processes and their output."""

    process: subprocess.Popen[bytes]
    output: Path
    folder: Path

    def trains(self) -> bool:
        """Whether the first step of this launch is done."""
        return b"it/s" in self.output.read_bytes() and b"/12 [" in self.output.read_bytes()

    def writes(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self.folder.glob(f"{CHECKPOINTS}/.*.ckpt.*"))

    def members(self) -> list[int]:
        """Process ids of the run that are alive, rank 0 first."""
        listed = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(self.process.pid)], capture_output=True, text=True)
        alive = [line.split() for line in listed.stdout.splitlines()]
        return sorted(int(pid) for pid, state in alive if not state.startswith("Z"))

    def kill(self) -> None:
        """``kill -9`` of all ranks."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Tally:
    """Results of the faults of one kind."""

    injected: int = 0
    survived: int = 0
    seconds: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)


def launch(folder: Path, world_size: int, data: Path) -> Run:
    """Start the training command."""
    trainer = ["trainer=cpu"] if world_size == 1 else ["trainer=ddp_cpu", f"trainer.devices={world_size}"]
    command = [sys.executable, str(ROOT / "train.py"), *SETTINGS, *trainer, f"data.root={data}"]
    folder.mkdir(exist_ok=True)
    output = folder.parent / f"{folder.name}.txt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Run(process, output, folder)


def wait_until(condition: Callable[[], bool], run: Run, patience: float = 300.0) -> bool:
    """Wait until a condition holds; False if the run ends before."""
    end = time.monotonic() + patience
    while time.monotonic() < end and run.process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder within this context."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65536)
    try:
        yield
    finally:
        filler.unlink()


def inject(kind: str, run: Run, draw: random.Random) -> tuple[float, int] | None:
    """Inject one fault, and wait until all ranks have ended.

    Returns:
        seconds until they have, and the exit status; None if the run was complete before the fault.
    """
    if not wait_until(run.trains, run):
        return None
    time.sleep(draw.uniform(0.0, 1.5))
    if kind == "kill -9 while writing":
        wait_until(run.writes, run)
        time.sleep(draw.uniform(0.0, 0.02))
    if run.process.poll() is not None:
        return None
    start = time.monotonic()
    with full_disk(run.folder) if kind == "full disk" else contextlib.nullcontext():
        if kind == "SIGTERM":
            os.kill(run.process.pid, signal.SIGTERM)
        elif kind == "Ctrl-C":
            os.killpg(run.process.pid, signal.SIGINT)  # a terminal sends it to all
        elif kind == "kill -9 of one rank":
            os.kill(draw.choice(run.members()), signal.SIGKILL)
        elif kind != "full disk":
            run.kill()
        while (alive := run.members()) and time.monotonic() - start < PATIENCE:
            run.process.poll()
            time.sleep(0.05)
    if alive:
        run.kill()
        raise SystemExit(f"{kind}: processes {alive} were still there after {PATIENCE:.0f} seconds: {run.output}")
    status = run.process.wait()
    if kind == "damaged checkpoint":
        damage(run.folder, draw)
    return time.monotonic() - start, status


def damage(folder: Path, draw: random.Random) -> None:
    """Truncate last.ckpt or change a byte, as a power cut may."""
    for path in folder.glob(f"{CHECKPOINTS}/last.ckpt"):
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        if draw.random() < 0.5:
            content = content[:place]
        else:
            content[place] ^= 255
        path.write_bytes(content)


def move(folder: Path, number: int) -> None:
    """Give the folder of a run another name, as somebody who tidies up between two starts."""
    for run in (folder / CHECKPOINTS).parent.parent.glob("*"):
        run.rename(run.with_name(f"{run.name}_moved_{number}"))


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of last.ckpt of the newest run."""
    return state_in(max(folder.glob(f"{CHECKPOINTS}/last.ckpt"), key=lambda path: path.stat().st_mtime))


def state_in(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint: weights, EMA, moments of the optimizer."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    state = {f"ema.{name}": value for name, value in content["state_dict"].items()}
    state |= {f"weights.{name}": value for name, value in content["current_model_state"].items()}
    for index, moments in content["optimizer_states"][0]["state"].items():
        state |= {f"{name}.{index}": value for name, value in moments.items()}
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference between two states; 0 means bit-equal."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def main() -> None:
    """Inject the faults, print the results, and fail if a run was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=20, help="number of faults in all")
    parser.add_argument("--faults-per-run", type=int, default=3)
    parser.add_argument("--world-size", type=int, default=1, help="ranks of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    kinds = ["kill -9 of all", "kill -9 while writing", "SIGTERM", "Ctrl-C", "damaged checkpoint"]
    if arguments.world_size > 1:
        kinds.insert(0, "kill -9 of one rank")
    folder = Path(tempfile.mkdtemp(prefix="interruptions_"))
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=250m", "tmpfs", small], capture_output=True)
    if mounted.returncode == 0:
        kinds.append("full disk")
    else:
        print("no full disk: tmpfs cannot be mounted here")
    try:
        report(*campaign(arguments, kinds, folder, draw), arguments.world_size)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", small], check=False)


def campaign(
    arguments: argparse.Namespace, kinds: list[str], folder: Path, draw: random.Random
) -> tuple[dict[str, Tally], list[float]]:
    """All runs: results by kind of fault, and each run's largest difference from the uninterrupted run."""
    data = folder / "shapes"
    straight = launch(folder / "straight", arguments.world_size, data)
    if straight.process.wait() != 0:
        raise SystemExit(f"the uninterrupted run failed: {straight.output}")
    expected = final_state(straight.folder)
    tallies = {kind: Tally() for kind in kinds}
    differences: list[float] = []
    waiting: list[str] = []
    injected = 0
    while injected < arguments.faults:
        run_folder = folder / ("small" if "full disk" in kinds else "") / f"run_{len(differences)}"
        of_this_run = []
        for _ in range(min(arguments.faults_per_run, arguments.faults - injected)):
            if not waiting:
                waiting = draw.sample(kinds, len(kinds))
            run = launch(run_folder, arguments.world_size, data)
            outcome = inject(waiting[-1], run, draw)
            if outcome is None:
                break
            kind = waiting.pop()
            injected += 1
            of_this_run.append(kind)
            tallies[kind].injected += 1
            tallies[kind].seconds.append(outcome[0])
            tallies[kind].statuses.add(outcome[1])
            moved = injected % 4 == 0
            if moved:
                move(run_folder, injected)
            what = f"ended after {outcome[0]:4.1f} s with status {outcome[1]}{', moved' if moved else ''}"
            print(f"{injected:3} {kind:24} {what}", flush=True)
        status = launch(run_folder, arguments.world_size, data).process.wait()
        difference = largest_difference(final_state(run_folder), expected) if status == 0 else float("inf")
        differences.append(difference)
        print(f"    run {len(differences)}: status {status}, largest difference {difference:g}", flush=True)
        for kind in of_this_run:
            tallies[kind].survived += difference == 0
        subprocess.run(["rm", "-r", run_folder], check=True)
    return tallies, differences


def report(tallies: dict[str, Tally], differences: list[float], world_size: int) -> None:
    """Print the table."""
    print(f"\n| {world_size} rank{'s' * (world_size > 1)} | faults | ended bit-equal | seconds to the end | status |")
    print("|---|---|---|---|---|")
    for kind, tally in tallies.items():
        seconds = f"{statistics.median(tally.seconds):.1f} (at most {max(tally.seconds):.1f})" if tally.seconds else ""
        statuses = ", ".join(map(str, sorted(tally.statuses)))
        print(f"| {kind} | {tally.injected} | {tally.survived} | {seconds} | {statuses} |")
    lost = sum(difference != 0 for difference in differences)
    print(f"\nfaults injected {sum(t.injected for t in tallies.values())}, runs {len(differences)}, runs lost {lost}")
    if lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
