"""`sweep=fair`: which jobs run, what is compared, and a sweep that goes on; the jobs are not trained."""

import json

import pytest
from helpers.cases import rest_slow
from helpers.fair_sweeps import WINE, Stop, assert_same_fair_sweep, compared, fair_sweep, told
from helpers.processes import start, train, wait_for_rows
from scipy.stats import qmc

from normlab.errors import ConfigError, SweepError
from normlab.runner.rehearsal import rehearse
from normlab.sweeps.fair.rehearsals import refusals

TWO = ["norm=batch,group", "fair.trials=3", "fair.seeds=2"]
KILLED = [(stops, workers) for workers in (1, 3) for stops in range(10)]  # of ten jobs, four of which are fresh runs
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
ARMS = ["norm=batch,group,none", "fair.trials=4", "fair.seeds=3"]


def results(path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in path.glob("*/result.json")}


def test_each_arm_is_tuned_alike_and_its_best_setting_is_run_on_fresh_seeds(tmp_path):
    launcher, fair = fair_sweep(tmp_path, *ARMS)
    assert (fair["keys"], fair["score"], fair["score_mode"]) == (["norm", "model", "data"], "val/acc", "max")
    assert [arm["name"] for arm in fair["arms"]] == ["norm=batch", "norm=group", "norm=none"]
    shares = qmc.Halton(1, rng=0).random(4)[:, 0]
    for arm in fair["arms"]:
        rates = [trial["point"]["optimizer.lr"] for trial in arm["trials"]]
        assert rates == pytest.approx([0.02 / 30 * 900**share for share in shares], rel=1e-3)
        runs = [launcher.launched[trial["job"]] for trial in arm["trials"]]
        assert [(run.optimizer.lr, run.seed, run.test) for run in runs] == [(rate, 0, False) for rate in rates]
        scores = [json.loads((tmp_path / str(t["job"]) / "result.json").read_text())["score"] for t in arm["trials"]]
        best = arm["tuned"]["trial"]
        assert scores[best] is not None
        assert arm["tuned"] == {"trial": best, **arm["trials"][best]}
        fresh = [launcher.launched[run["job"]] for run in arm["fresh"]]
        assert [(run.optimizer.lr, run.seed, run.test) for run in fresh] == [
            (rates[best], seed, True) for seed in (1, 2, 3)
        ]
    assert len({arm["tuned"]["trial"] for arm in fair["arms"]}) > 1
    assert launcher.launched.keys() == {*range(21)}


@pytest.mark.parametrize(("stops", "workers"), rest_slow(KILLED, lambda case: case == (3, 3)))
def test_a_killed_sweep_ends_as_one_that_was_not(stops, workers, tmp_path):
    """With several workers jobs end in another order than they began, and those that run are killed together."""
    fair_sweep(tmp_path / "whole", *TWO)
    with pytest.raises(Stop):
        fair_sweep(tmp_path / "parts", *TWO, stops=stops, workers=workers, seed=stops)
    rest, fair = fair_sweep(tmp_path / "parts", *TWO, workers=workers, seed=stops + 1)
    assert fair == told(tmp_path / "whole")
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert len(rest.launched) == 10 - stops
    assert fair_sweep(tmp_path / "parts", *TWO)[0].launched == {}


MORE = [
    (["norm=batch,none,group", "fair.trials=3", "fair.seeds=2"], 3),
    (["norm=group,batch", "fair.trials=3", "fair.seeds=4"], 0),
    (["norm=batch,group", "fair.trials=4", "fair.seeds=2"], 2),
]


@pytest.mark.parametrize(("more", "trials"), rest_slow(MORE, lambda case: case[1] == 3))
def test_what_is_added_runs_nothing_again(more, trials, tmp_path):
    fair_sweep(tmp_path, *TWO)
    before = results(tmp_path)
    launched = fair_sweep(tmp_path, *more)[0].launched
    assert sum(not run.test for run in launched.values()) == trials
    assert before.items() <= results(tmp_path).items()
    assert not before.keys() & set(map(str, launched))


def test_a_run_that_diverged_is_an_answer_and_one_that_failed_is_run_again(tmp_path, capsys):
    """Of the three rates one is above a tenth. What diverged is counted, and what failed is told."""
    failed = {1: {"status": "failed", "score": None, "error": "MemoryError: no"}}
    with pytest.raises(SweepError, match=r"1 of 10 jobs failed: \S+/1$"):
        fair_sweep(tmp_path, *TWO, ends=failed)
    statuses = [json.loads(text)["status"] for text in results(tmp_path).values()]
    assert statuses.count("failed") == 3
    told_of = capsys.readouterr()
    assert "10 jobs: 7 finished, 2 diverged, 1 failed, 6/6 trials, 4/4 fresh runs, " in told_of.out
    assert [line.partition(" (")[0] for line in told_of.err.splitlines()] == ["job 1"]
    again, _ = fair_sweep(tmp_path, *TWO)
    assert again.launched.keys() == {1}


def test_an_arm_without_a_score_gets_no_fresh_runs(tmp_path, capsys):
    diverged = {number: {"status": "failed", "score": None, "error": "FloatingPointError: nan"} for number in (3, 4, 5)}
    _, fair = fair_sweep(tmp_path, *TWO, ends=diverged)
    assert [len(arm["fresh"]) for arm in fair["arms"]] == [2, 0]
    assert fair["arms"][1]["tuned"] is None
    assert "norm=group: none of 3 trials (3 diverged) has a score" in capsys.readouterr().out


def test_an_arm_that_is_refused_costs_one_job_where_only_a_job_can_tell(tmp_path, capsys):
    refused = {3: {"status": "refused", "score": None, "error": "bn1 needs at least 8"}}
    with pytest.raises(SweepError, match="1 of 2 arms were refused, and not compared: norm=group"):
        fair_sweep(tmp_path, *TWO, ends=refused)
    fair = told(tmp_path)
    assert [len(arm["trials"]) for arm in fair["arms"]] == [3, 1]
    assert [arm["refused"] for arm in fair["arms"]] == [None, "bn1 needs at least 8"]
    assert "norm=group is refused: bn1 needs at least 8" in capsys.readouterr().out
    assert fair_sweep(tmp_path, *TWO)[0].launched.keys() == {3, 4, 5, 8, 9}


def test_a_refused_arm_is_told_before_the_first_job_and_costs_none(tmp_path):
    """Batches have 16 samples. What is tuned is tried at both ends: a size of 4 to 17 is too large there."""
    fair = compared("norm=batch,ghost", "data.drop_last=true", "norm.size=int(interval(4,17))")
    assert refusals(fair, rehearse, tmp_path) == {
        "norm=ghost": "training batches hold 16 samples, and bn1 needs at least 17: raise data.batch_size, or use "
        "norm=group or layer"
    }
    assert not list(tmp_path.iterdir())


def test_arms_of_different_scores_are_refused_before_the_first_job(tmp_path):
    with pytest.raises(ConfigError, match=r"data=wine is scored by val/acc \(max\) and data=diabetes by val/r2"):
        refusals(compared("data=wine,diabetes"), rehearse, tmp_path)


@pytest.mark.parametrize(("budget", "counted"), [(2.0, 2), (2.5, 3), pytest.param(1.5, 2, marks=pytest.mark.slow)])
def test_by_time_a_trial_counts_if_those_before_it_took_less(budget, counted, tmp_path):
    """Each of these trials takes a second; a second start changes nothing."""
    by_time = ["norm=batch,group", "fair.budget=seconds", f"fair.seconds={budget}", "fair.seeds=1"]
    launcher, fair = fair_sweep(tmp_path, *by_time)
    assert [len(arm["trials"]) for arm in fair["arms"]] == [counted, counted]
    assert len(launcher.launched) == 2 * counted + 2
    assert fair["trials"] is None
    again, same = fair_sweep(tmp_path, *by_time)
    assert (again.launched, same) == ({}, fair)


def test_by_time_a_cluster_gets_no_more_trials_than_are_likely_to_count(tmp_path):
    """It takes every job that there is. Trials take a second each, so that exactly those are run that count."""
    by_time = ["norm=batch,group", "fair.budget=seconds", "fair.seconds=9.5", "fair.seeds=1"]
    launcher, fair = fair_sweep(tmp_path, *by_time, workers=200)
    assert [len(arm["trials"]) for arm in fair["arms"]] == [10, 10]
    assert len(launcher.launched) == 2 * 10 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]], ids=["basic", "joblib"]
)
def test_a_killed_process_goes_on_with_the_same_numbers(launcher, tmp_path):
    command = ["-m", *WINE, "trainer.max_epochs=20", "norm=batch,group", "fair.trials=2", "fair.seeds=1"]
    process = start(*command, *launcher, "name=parts", cwd=tmp_path)
    whole, parts = tmp_path / "outputs" / "whole", tmp_path / "outputs" / "parts"
    wait_for_rows(parts / "2" / "metrics.csv", 3)
    process.kill()
    process.communicate()
    train(*command, *launcher, "name=parts", cwd=tmp_path)
    train(*command, "name=whole", cwd=tmp_path)
    assert_same_fair_sweep(parts, whole)
