"""The benchmark on a GPU, on a CPU: whatever a measurement does, the others are measured and nothing is lost."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch

from benchmarks.gpu import command
from benchmarks.gpu.capture import Captured, why_not
from benchmarks.gpu.memory_checks import limited_memory
from benchmarks.gpu.plan import PARTS, Part, Plan
from benchmarks.gpu.results import PAGE_FILE, Record, Results
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.waiting import WaitRecorder
from tests.support import ROOT

MADE_UP = "tests.made_up_measurements"


def run(folder: Path, ways: list[str], *budgets: float, number: float = 0) -> list[Record]:
    """Measure parts of the same made-up measurements."""
    (folder / "made_up.json").write_text(json.dumps([(way, number) for way in ways]))
    results = Results(folder / "results", dry_run=False)
    parts = {f"part {place}": Part(MADE_UP, budget) for place, budget in enumerate(budgets)}
    Runner(Plan(False, folder), results).run(parts)
    return results.records


def test_a_measurement_that_fails_in_any_way_is_a_result_and_the_others_go_on(tmp_path: Path) -> None:
    ways = ["raises", "exits", "is skipped", "crashes", "hangs", "returns"]
    records = run(tmp_path, ways, 60)
    assert [record.name for record in records] == ways
    assert [record.state for record in records] == ["failed", "failed", "skipped", "failed", "failed", "measured"]
    raises, exits, skipped, crashes, hangs, returns = (record.reason for record in records)
    assert raises.startswith("ValueError: no such model (tests/made_up_measurements.py:")
    assert exits.startswith("SystemExit: 2")
    assert skipped == "nothing to measure"
    assert crashes == "ended by SIGKILL"
    assert hangs == "stopped after 0 seconds"
    assert not returns
    assert not alive(tmp_path)


def alive(folder: Path) -> bool:
    """Whether the process of a measurement that takes long is still there."""
    try:
        os.kill(int((folder / "process").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_every_result_is_on_the_disk_while_the_next_is_measured(tmp_path: Path) -> None:
    first, second = run(tmp_path, ["returns", "looks"], 60)
    assert first.figures["there"] == []
    assert second.figures["there"] == ["returns"]
    page = (tmp_path / "results" / PAGE_FILE).read_text()
    assert "| looks | number 0<br>there: returns (number at most 1: yes) |" in page
    assert "no figure means anything" not in page
    assert "no figure means anything" in "".join(Results(tmp_path / "dry", dry_run=True).page())


def test_figures_are_shown_in_words() -> None:
    figures = {
        "ours": {"images/s": 1234.5, "ms": 12.345},
        "batches": [6, 3, 3],
        "places": ["x" * 40, "y" * 40],
        "MB": 7,
    }
    wanted = f"MB 7; ours: images/s 1,234, ms 12.3; batches: 6, 3, 3; places: {'x' * 40}; {'y' * 40}"
    assert Record("part", "name", "measured", figures).text() == wanted


def test_a_part_whose_budget_is_used_up_stops_and_says_what_is_left_out(tmp_path: Path) -> None:
    began = time.monotonic()
    records = run(tmp_path, ["returns", "takes long", "returns again"], 6)
    assert time.monotonic() - began < 20
    assert [record.state for record in records][1:] == ["failed", "left out"]
    assert records[2].reason == "the part's 6 seconds were used up"
    assert not alive(tmp_path)


def test_what_a_part_does_not_use_is_left_to_the_next(tmp_path: Path) -> None:
    records = run(tmp_path, ["returns"], 60, 0)
    assert [(record.part, record.state) for record in records] == [("part 0", "measured"), ("part 1", "measured")]


def test_a_part_that_cannot_start_is_a_result(tmp_path: Path) -> None:
    results = Results(tmp_path / "results", dry_run=True)
    parts = {"broken": Part("tests.there_is_no_such_module", 60), "next": PARTS["run"]}
    Runner(Plan(True, tmp_path), results).run(parts)
    [record] = results.records  # and where the first part measures nothing, no other is tried
    assert (record.part, record.state) == ("broken", "failed")
    assert "ended with status 1: see broken.log" in record.reason
    assert "there_is_no_such_module" in (tmp_path / "results" / "broken.log").read_text()


def test_a_figure_beyond_its_bound_is_looked_at_and_so_is_one_that_is_missing_or_nan(tmp_path: Path) -> None:
    [record] = run(tmp_path, ["returns"], 60, number=2)
    assert (record.is_bad, record.beyond) == (True, ["number"])
    assert "**NOT SO**, number" in record.text()
    for figures in ({}, {"number": "nan"}, {"number": math.nan}):
        assert Record("part", "name", "measured", figures, {"number": 1}).beyond == ["number"]


def test_a_stopped_benchmark_leaves_its_results_and_no_process(tmp_path: Path) -> None:
    (tmp_path / "made_up.json").write_text(json.dumps([("returns", 0), ("takes long", 0)]))
    program = (
        "import sys; from pathlib import Path; from unittest import mock; from benchmarks.gpu import command, plan;"
        f"command.PARTS = {{'card': plan.Part('{MADE_UP}', 60)}};"
        f"command.Plan = lambda dry, folder, authors: plan.Plan(dry, Path('{tmp_path}'));"
        f"sys.argv = ['gpu', '--results', '{tmp_path / 'results'}']; command.main()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "process").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    content = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert [record["name"] for record in content["results"]] == ["returns"]
    assert not alive(tmp_path)


def test_only_the_chosen_parts_are_measured_and_earlier_results_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PARTS", {name: Part("tests.there_is_no_such_module", 60) for name in PARTS})
    monkeypatch.setattr(command, "_DRY_BUDGET", 60)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--dry-run", "--only", "inference", "--results", str(tmp_path / "results")]
    )
    with pytest.raises(SystemExit, match="1"):
        command.main()
    assert "1 results, 1 to look at" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"gpu.json' is there already: give another folder"):
        command.main()
    assert list(command.chosen_parts(["run", "right"], dry_run=False)) == ["card", "right", "run"]


def test_all_parts_together_take_at_most_seven_minutes() -> None:
    assert sum(part.budget for part in PARTS.values()) <= 7 * 60


def test_a_wait_is_told_by_its_line() -> None:
    with WaitRecorder("cpu") as recorder:
        torch.ones(2).sum().item()
    [(place, count)] = recorder.waits.items()
    assert count == 1
    assert "`torch.ones(2).sum().item()`" in place


def test_waits_on_a_gpu_are_its_warnings_and_waiting_for_events() -> None:
    with (
        mock.patch.object(torch.cuda, "set_sync_debug_mode") as debug_mode,
        mock.patch.object(torch.cuda, "get_sync_debug_mode", return_value=0),
        mock.patch.object(torch.cuda.Event, "synchronize"),
        warnings.catch_warnings(record=True) as others,
        WaitRecorder("cuda") as recorder,
    ):
        warnings.warn("called a synchronizing CUDA operation (Triggered internally ...)", stacklevel=1)
        warnings.warn("another", stacklevel=1)
        for _ in range(2):
            torch.cuda.Event.synchronize(mock.Mock())
    assert [call.args for call in debug_mode.call_args_list] == [("warn",), (0,)]
    assert [str(other.message) for other in others] == ["another"]
    assert sorted(recorder.waits.values()) == [1, 2]
    assert all("test_gpu_benchmark.py" in place for place in recorder.waits)


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "CUDAGraph", "stream", "graph", "synchronize", "current_stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    torch.cuda.graph.return_value.__exit__.return_value = False
    calls = []

    def fails_when_captured() -> None:
        calls.append(len(calls))
        if len(calls) == 4:  # after three to warm up
            raise RuntimeError("not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        Captured(fails_when_captured)
    torch.cuda.set_stream.assert_called_once_with(torch.cuda.current_stream.return_value)


def test_memory_is_limited_to_bytes_and_freed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty_cache", "set_per_process_memory_fraction", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    torch.cuda.get_device_properties.return_value.total_memory = 1000
    with pytest.raises(torch.OutOfMemoryError), limited_memory(250):
        raise torch.OutOfMemoryError
    assert [call.args for call in torch.cuda.set_per_process_memory_fraction.call_args_list] == [(0.25,), (1.0,)]


def test_the_reason_that_a_capture_fails_is_its_first_error() -> None:
    def capture() -> None:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("the capture was invalidated")  # as leaving the capture does

    with pytest.raises(RuntimeError) as caught:
        capture()
    assert why_not(caught.value).startswith("RuntimeError: operation not permitted when stream is capturing (tests/")


@pytest.mark.parametrize("dry_run", [True, False])
def test_every_measurement_of_a_part_has_a_name_of_its_own(dry_run: bool, tmp_path: Path) -> None:
    for part in PARTS.values():
        names = [it.name for it in importlib.import_module(part.module).measurements(Plan(dry_run, tmp_path))]
        assert names
        assert len(names) == len(set(names))
