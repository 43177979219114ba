"""The trials of a sweep: none lost, none twice, however its workers begin and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot

pytest.importorskip("optuna", reason="Optuna is not installed")

import optuna
from optuna.pruners import MedianPruner, ThresholdPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.sweeps.charts import save_charts, with_every_ap
from rtdetrv2_train.sweeps.results import print_table, save_table
from rtdetrv2_train.sweeps.space import Space, space_and_rest
from rtdetrv2_train.sweeps.study import SweepStudy
from tests.support import ROOT

SPACE, _ = space_and_rest(["rate=tag(log, interval(1e-4, 1e-2))", "size=4,8"])
GRID, _ = space_and_rest(["rate=1,2,3", "size=4,8"])


def tpe(number: int) -> TPESampler:
    return TPESampler(n_startup_trials=3, seed=number)


def run_all(folder: Path, space: Space, most: int | None, stop_after: int = 10**6) -> list[dict[str, object]]:
    """Work until nothing, or so many trials, are done; an invented AP follows from the parameters."""
    study, done = SweepStudy(folder), 0
    with study.worker() as worker:
        while done < stop_after and (claimed := study.claim(worker, 1, space, most, tpe)):
            for trial in claimed:
                with study.running(trial.number) as is_ours:
                    assert is_ours
                    study.report(trial.number, 1, 0.1)
                    study.finish(trial.number, float(trial.params["rate"]) / 10)
            done += 1
    return [trial.params for trial in study.trials]


def test_hydras_grammar_says_what_is_varied() -> None:
    space, rest = space_and_rest(
        ["a=1,2", "b=x", "c=interval(1, 5)", "a=range(1, 4)", "b=y", "+d=tag(log, interval(1, 2.5))"]
    )
    assert space["a"].choices == ("1", "2", "3")  # type: ignore[attr-defined]
    assert (space["c"].low, space["c"].high, space["c"].log) == (1, 5, False)  # type: ignore[attr-defined]
    assert space["+d"].log  # type: ignore[attr-defined]
    assert rest == ["b=y"]
    with pytest.raises(UserError, match=r"'e=interval\(2, 1\)'"):
        space_and_rest(["e=interval(2, 1)"])


def test_a_grid_tries_each_combination_once_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = run_all(tmp_path, GRID, None, stop_after=2)
    assert len(first) == 2
    found = run_all(tmp_path, GRID, None)
    assert found[:2] == first
    assert Counter((p["rate"], p["size"]) for p in found) == Counter((r, s) for r in "123" for s in "48")
    with pytest.raises(UserError, match="'rate' is an interval"):
        run_all(tmp_path / "other", SPACE, None)


def test_an_interrupted_sweep_tries_what_an_uninterrupted_one_tries(tmp_path: Path) -> None:
    run_all(tmp_path / "twice", SPACE, 7, stop_after=4)
    assert run_all(tmp_path / "twice", SPACE, 7) == run_all(tmp_path / "once", SPACE, 7)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.sweeps.test_study import *\n"
        "study = SweepStudy(sys.argv[1])\n"
        "with study.worker() as worker:\n"
        "    trial = study.claim(worker, 1, SPACE, 2, tpe)[0]\n"
        "    with study.running(trial.number):\n"
        "        print('claimed', flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        study = SweepStudy(tmp_path)
        with study.worker() as worker:
            assert [trial.number for trial in study.claim(worker, 2, SPACE, 2, tpe)] == [1]
            with study.running(0) as is_ours:
                assert not is_ours
            parameters = study.trials[0].params
            other.send_signal(signal.SIGKILL)
            other.wait()
            (taken,) = study.claim(worker, 2, SPACE, 2, tpe)
            assert (taken.number, taken.params) == (0, parameters)


@pytest.mark.slow
def test_workers_at_once_share_the_trials(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.sweeps.test_study import *\n"
    code += "run_all(Path(sys.argv[1]), SPACE, 12)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment) for _ in range(2)
    ]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    trials = SweepStudy(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 12
    assert len({trial.params["rate"] for trial in trials}) == 12


def test_a_study_is_held_to_its_settings(tmp_path: Path) -> None:
    SweepStudy(tmp_path).hold_to({"model": "nano", "seed": "0"})
    SweepStudy(tmp_path).hold_to({"model": "nano", "seed": "0"})
    with pytest.raises(UserError, match=r"model: nano before, r18vd now\).*sweep.name="):
        SweepStudy(tmp_path).hold_to({"model": "r18vd", "seed": "0"})


def test_pruned_and_failed_trials_are_told_apart_in_table_and_charts(tmp_path: Path) -> None:
    study = SweepStudy(tmp_path, pruner=MedianPruner(n_startup_trials=2))
    with study.worker() as worker:
        for trial in study.claim(worker, 4, SPACE, 4, tpe):
            if trial.number == 3:
                study.fail(3, "it\nbroke")
                continue
            for epoch in (1, 2):
                if study.report(trial.number, epoch, 0.1 * epoch * (trial.number != 2)):
                    break
            study.finish(trial.number, 0.2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]
    save_table(tmp_path / "trials.csv", study.trials)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert lines[0] == "trial,state,AP,epochs,rate,size,reason"
    assert lines[1].startswith("0,complete,0.200000,2,")
    assert lines[3].startswith("2,pruned,0.000000,1,")
    assert lines[4].startswith("3,failed,,0,")
    assert lines[4].endswith("it broke")
    names = [path.name for path in save_charts(tmp_path, study.study)]
    assert names == ["history.png", "epochs.png", "importances.png", "parallel_coordinates.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    assert [trial.value for trial in with_every_ap(study.study).trials] == [20, 20, 0, None]


def test_values_that_look_like_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(direction="maximize")
    values = ("[/b]", "$x_{$", "[car,bus]")
    for number, value in enumerate(values):
        distributions = {"classes": optuna.distributions.CategoricalDistribution(values)}
        params = {"classes": value}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=0.1 * number))
    assert len(save_charts(tmp_path, study)) == 4
    print_table(study.trials, 1)
    printed = capsys.readouterr().out
    assert all(value in printed for value in values)


def test_charts_leave_matplotlib_as_they_found_it(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    for value in ("1", "2"):  # a grid of two, with the same AP
        distributions = {"rate": optuna.distributions.CategoricalDistribution(("1", "2"))}
        study.add_trial(optuna.trial.create_trial(params={"rate": value}, distributions=distributions, value=0.5))
    pyplot.switch_backend("svg")
    settings = dict(matplotlib.rcParams)
    assert len(save_charts(tmp_path, study)) == 4
    assert dict(matplotlib.rcParams) == settings
    assert (matplotlib.get_backend(), pyplot.get_fignums()) == ("svg", [])


def test_a_trial_that_has_had_all_its_epochs_is_complete_however_poor(tmp_path: Path) -> None:
    study = SweepStudy(tmp_path, pruner=ThresholdPruner(lower=2))
    with study.worker() as worker:
        study.claim(worker, 1, SPACE, 1, tpe)
        assert not study.report(0, 3, 0.1, is_last=True)
        study.finish(0, 0.1)
    assert study.trials[0].state is TrialState.COMPLETE
