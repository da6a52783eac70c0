"""`hydra/sweeper=optuna`: what is searched, what is refused, and a sweep that goes on."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from helpers.cases import rest_slow
from helpers.processes import train
from helpers.searches import (
    GRID,
    RANDOM,
    SEARCH,
    SMALL,
    SPACE,
    TPE,
    FakeLauncher,
    FakeQueue,
    Stop,
    numbered,
    search,
    study,
    told,
    trials,
)
from omegaconf import OmegaConf

from normlab import compose, run
from normlab.config import names
from normlab.config.objectives import check_objectives, direction
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError, SweepError
from normlab.folder import lock, writing
from normlab.tasks.classify import Classify
from normlab.tasks.regress import Regress

optuna = pytest.importorskip("optuna")


class Scoreless(FakeLauncher):
    """Two jobs without a score, and then one with the lowest."""

    def result(self, number, values):
        return super().result(number, values) | {"score": [None, math.nan, 0.0][number]}


@pytest.mark.slow
def test_two_processes_of_a_job_get_the_values_of_its_trial(tmp_path):
    """They train the network that one process trains with them; with a larger n_trials, the sweep goes on."""
    command = ["-m", *SEARCH, *SMALL, "trainer=ddp_cpu", "data.batch_size=4", "optimizer.lr=interval(0.01,0.1)"]
    train(*command, "hydra.sweeper.n_trials=1", "name=s", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    before = (sweep / "0" / "result.json").read_text()
    train(*command, "hydra.sweeper.n_trials=2", "name=s", cwd=tmp_path)
    assert (sweep / "0" / "result.json").read_text() == before
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    found = study(sweep).trials
    assert len({trial.params["optimizer.lr"] for trial in found}) == len(found) == 2
    for trial in found:
        rate, job = trial.params["optimizer.lr"], sweep / str(trial.number)
        assert 0.01 <= rate <= 0.1
        assert OmegaConf.load(job / "config.yaml").optimizer.lr == rate
        result = told(job)
        assert f"optimizer.lr={rate}" in result["overrides"]
        assert (result["world_size"], result["score"]) == (2, trial.value)
        alone = tmp_path / f"alone{trial.number}"
        run(compose([*SMALL, "trainer=cpu", "data.batch_size=8", f"optimizer.lr={rate}"]), folder=alone)
        one, two = (torch.load(p / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for p in (alone, job))
        assert all(torch.allclose(two[key], value, rtol=0, atol=1e-10) for key, value in one.items())


@pytest.mark.parametrize("n_jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize(
    ("sampler", "typed"),
    rest_slow(
        [(TPE, SPACE), (GRID, ["optimizer.lr=range(0.1,0.35,0.1)", "model=net,custom_model"]), (RANDOM, SPACE)],
        lambda case: case[0] is not RANDOM,
    ),
)
def test_a_sweep_that_was_stopped_ends_as_one_that_was_not(sampler, typed, n_jobs, tmp_path):
    settings = {"typed": typed, "sampler": sampler, "n_jobs": n_jobs, "n_trials": None if sampler is GRID else 14}
    total = 6 if sampler is GRID else 14  # TPE looks at scores after ten
    whole = search(tmp_path / "whole", FakeLauncher(), **settings)
    for stops in (1, total - 2):
        with pytest.raises(Stop):
            search(tmp_path / "parts", FakeLauncher(stops=stops), **settings)
    rest, again = FakeLauncher(), FakeLauncher()
    assert trials(search(tmp_path / "parts", rest, **settings)) == trials(whole)
    assert [number for number, _ in rest.launched] == [total - 2, total - 1]
    assert len(search(tmp_path / "parts", again, **settings).trials) == total
    assert again.launched == []


def test_the_place_of_a_job_that_has_ended_is_taken_at_once(tmp_path):
    """Job 0 takes as long as five others. With random values the trials are those of n_jobs=1."""
    launcher = FakeQueue(lengths=[5])
    found = search(tmp_path / "beside", launcher, n_jobs=2)
    others = [event for number in range(2, 6) for event in (f"ends {number - 1}", f"begins {number}")]
    assert launcher.events == ["begins 0", "begins 1", *others, "ends 0", "ends 5"]
    assert trials(found) == trials(search(tmp_path / "alone", FakeLauncher()))


@pytest.mark.parametrize("sampler", rest_slow([RANDOM, TPE], lambda case: case[0] is TPE))
def test_jobs_that_were_under_way_go_on_first(sampler, tmp_path):
    """The sweep stops as job 3 ends, while jobs 0 and 2 run; their values are not chosen anew."""
    settings = {"sampler": sampler, "n_jobs": 3, "n_trials": 14}
    with pytest.raises(Stop):
        search(tmp_path, FakeQueue(lengths=[9, 1, 9, 1], stops=3), **settings)
    before = [trial for trial in trials(study(tmp_path)) if trial[3] == "RUNNING"]
    assert [number for number, *_ in before] == [0, 2, 3]
    again = FakeQueue()
    after = trials(search(tmp_path, again, **settings))
    assert again.events[:3] == ["begins 0", "begins 2", "begins 3"]
    assert [after[number][1] for number, *_ in before] == [values for _, values, *_ in before]
    assert [state for *_, state in after] == ["COMPLETE"] * 14
    assert len(again.launched) == 13


def test_the_place_of_a_job_whose_process_was_killed_is_taken_too(tmp_path):
    launcher = FakeQueue(lengths=[3, 1], killed=(1,))
    with pytest.raises(SweepError, match="1 of 6 jobs failed: .*/1"):
        search(tmp_path, launcher, n_jobs=2)
    assert launcher.events[:4] == ["begins 0", "begins 1", "ends 1", "begins 2"]
    again = FakeQueue()
    found = search(tmp_path, again, n_jobs=2)
    assert again.events == ["begins 1", "ends 1"]
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 6


def test_what_was_drawn_is_in_the_space_and_what_is_launched(tmp_path):
    launcher = FakeLauncher()
    found = search(tmp_path, launcher, [*SPACE, "+trainer.max_time=null", "data=wine"], n_trials=40)
    assert {trial.params["model"] for trial in found.trials} == {"net", "custom_model"}
    assert {trial.params["data.batch_size"] for trial in found.trials} == set(range(8, 17))
    rates = [trial.params["optimizer.lr"] for trial in found.trials]
    assert all(0.01 <= rate <= 0.1 for rate in rates)
    assert sum(rate < 0.01**0.5 * 0.1**0.5 for rate in rates) in range(12, 29)  # the middle of a logarithm
    for trial, (number, overrides) in zip(found.trials, launcher.launched, strict=True):
        chosen = [f"{key}={value}" for key, value in trial.params.items()]
        assert (number, overrides) == (trial.number, ["+trainer.max_time=null", "data=wine", *chosen])


def test_seeds_are_different_searches(tmp_path):
    drawn = []
    for seed in (0, 1):
        found = search(tmp_path / str(seed), FakeLauncher(), SPACE[:1], seed=seed)
        drawn += [trial.params["optimizer.lr"] for trial in found.trials]
    assert len(set(drawn)) == 12  # no search draws what another drew a trial later


@pytest.mark.slow
def test_tpe_looks_at_scores_and_random_does_not(tmp_path):
    """The score is the learning rate: higher ones are found again, or lower ones with score_mode=min."""
    means = {}
    for sampler, mode in ((RANDOM, "max"), (TPE, "max"), (TPE, "min")):
        settings = {"sampler": sampler, "n_trials": 30, "config": ["score=val/acc", f"score_mode={mode}"]}
        found = search(tmp_path / sampler.__name__ / mode, FakeLauncher(), ["optimizer.lr=interval(0.1,1)"], **settings)
        means[sampler, mode] = sum(trial.params["optimizer.lr"] for trial in found.trials[10:]) / 20
    assert means[TPE, "max"] > means[RANDOM, "max"] + 0.15
    assert means[TPE, "min"] < means[RANDOM, "max"] - 0.15


def test_what_is_typed_goes_before_the_yaml(tmp_path):
    params = {"optimizer.lr": "interval(0.1,1)", "optimizer.momentum": "choice(0.5,0.9)", "data": "wine"}
    launcher = FakeLauncher()
    typed = ["optimizer.lr=0.3", "model=net,custom_model"]
    found = search(tmp_path, launcher, typed, params=params, sampler=GRID, n_trials=None)
    assert [overrides for _, overrides in launcher.launched] == [
        ["optimizer.lr=0.3", "data=wine", f"optimizer.momentum={momentum}", f"model={model}"]
        for momentum in (0.5, 0.9)
        for model in ("net", "custom_model")
    ]
    assert {trial.state.name for trial in found.trials} == {"COMPLETE"}


def test_a_failed_job_is_told_at_the_end_and_counts(tmp_path):
    for launcher in (FakeLauncher(broken=(1, 3)), FakeLauncher()):  # also where they are not run again
        with pytest.raises(SweepError, match="2 of 6 jobs failed: .*/1, .*/3"):
            search(tmp_path, launcher)
    found = study(tmp_path)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "FAIL"] * 2 + ["COMPLETE"] * 2
    assert launcher.launched == []


KILLED = [((0,), 1), ((1, 3), 2), ((0, 1, 4), 3), ((0, 1, 2, 3, 4, 5), 6)]


@pytest.mark.parametrize(("killed", "n_jobs"), rest_slow(KILLED, lambda case: case[1] == 2))
def test_a_job_whose_process_was_killed_is_run_again(killed, n_jobs, tmp_path):
    settings = {"n_jobs": n_jobs}
    whole = search(tmp_path / "whole", FakeLauncher(), **settings)
    with pytest.raises(SweepError, match=f"{len(killed)} of 6 jobs failed: "):
        search(tmp_path / "parts", FakeLauncher(killed=killed), **settings)
    again = FakeLauncher()
    found = search(tmp_path / "parts", again, **settings)
    assert [number for number, _ in again.launched] == [*killed]
    assert trials(found) == trials(whole)


class Refusing(FakeLauncher):
    """Its jobs with batches below 12 are refused before training."""

    def launch(self, job_overrides, initial_job_idx):
        jobs = numbered(job_overrides)
        self.broken = {
            n for n, typed in jobs.items() if int(dict(line.split("=") for line in typed)["data.batch_size"]) < 12
        }
        for number in self.broken:
            (self.path / str(number)).mkdir(exist_ok=True)
            told = {"status": "refused", "score": None, "error": "ghost size", "overrides": jobs[number]}
            writing.write_result(self.path / str(number), told)
        return super().launch(job_overrides, initial_job_idx)


@pytest.mark.parametrize("sampler", rest_slow([RANDOM, TPE], lambda case: case[0] is TPE))
def test_a_trial_that_is_refused_before_training_makes_room_for_another(sampler, tmp_path):
    typed = ["data.batch_size=int(interval(8,16))"]
    with pytest.raises(SweepError, match="jobs failed"):
        search(tmp_path, Refusing(), typed, sampler=sampler, n_trials=8)
    states = [trial.state.name for trial in study(tmp_path).trials]
    assert states.count("COMPLETE") == 8
    assert 0 < states.count("FAIL") <= 8


def test_refused_trials_alone_do_not_go_on_for_ever(tmp_path):
    with pytest.raises(SweepError, match="12 of 12 jobs failed"):
        search(tmp_path, Refusing(), ["data.batch_size=int(interval(8,11))"], n_trials=6)


def test_refused_combinations_of_a_grid_are_not_tried_again(tmp_path):
    with pytest.raises(SweepError, match="2 of 4 jobs failed"):
        search(tmp_path, Refusing(), ["data.batch_size=8,10,12,14"], sampler=GRID, n_trials=None)


def test_a_job_without_a_score_is_no_success(tmp_path):
    found = search(tmp_path, Scoreless(), n_trials=3)
    assert [trial.state.name for trial in found.trials] == ["FAIL", "FAIL", "COMPLETE"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A search of one trial, which refusals leave as it is."""
    folder = tmp_path_factory.mktemp("begun")
    search(folder, FakeLauncher(), n_trials=1)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"typed": ["optimizer.lr=interval(0.01,0.2)", *SPACE[1:]]},
            r"optimizer.lr: .*0.1.* there, interval.*0.2\) here",
        ),
        ({"typed": SPACE[:1]}, r"model: choice\(net,custom_model\) there"),
        ({"config": ["norm=group"]}, "norm._target_"),
        ({"config": ["score=val/f1", "score_mode=max"]}, "score: null there, val/f1 here"),
        ({"sampler": GRID, "typed": ["model=net,custom_model"]}, "grid: false there, true here"),
        ({"objectives": ["score", "seconds"]}, r"objectives: \['score'\] there, \['score', 'seconds'\] here"),
    ],
)
def test_another_sweep_is_refused(change, message, begun):
    launcher = FakeLauncher()
    with pytest.raises(ConfigError, match=message) as refusal:
        search(begun, launcher, **change)
    assert "holds another sweep; choose another name=" in str(refusal.value)
    assert launcher.launched == []
    assert len(study(begun).trials) == 1


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "0").mkdir()
    with pytest.raises(ConfigError, match="exists and holds no search; choose another name="):
        search(tmp_path, FakeLauncher())
    assert [entry.name for entry in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize("sampler", rest_slow([RANDOM, GRID], lambda case: case[0] is GRID))
def test_a_trial_that_was_stopped_before_it_had_values_is_made_up_for(sampler, tmp_path):
    typed = ["optimizer.lr=0.1,0.2,0.3", "model=net,custom_model"]
    whole = search(tmp_path / "whole", FakeLauncher(), typed, sampler=sampler)
    with pytest.raises(Stop):
        search(tmp_path / "parts", FakeLauncher(stops=2), typed, sampler=sampler)
    study(tmp_path / "parts").ask()
    parts = search(tmp_path / "parts", FakeLauncher(), typed, sampler=sampler)
    assert [trial.state.name for trial in parts.trials] == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 3
    assert [trial.params for trial in parts.trials if trial.params] == [trial.params for trial in whole.trials]


def test_jobs_without_any_score_are_no_answer(tmp_path):
    with pytest.raises(ConfigError, match="has reached a score"):
        search(tmp_path, Scoreless(), n_trials=2)


class Traded(FakeLauncher):
    """Jobs whose higher score takes longer, but for the last, which is worse than the first in both."""

    def result(self, number, values):
        score, seconds, loss = [(0.7, 3.0, 0.5), (0.8, 4.0, 0.4), (0.9, 5.0, 0.6), (0.6, 3.5, 0.7)][number]
        return {"score": score, "seconds": seconds, "parameters": 9, "metrics": {"test/acc": 1.0, "test/loss": loss}}


def test_several_objectives_end_in_a_pareto_front(tmp_path, caplog):
    caplog.set_level("INFO")
    found = search(tmp_path, Traded(), objectives=["score", "seconds"], n_trials=4)
    assert [trial.values for trial in found.trials] == [[0.7, 3.0], [0.8, 4.0], [0.9, 5.0], [0.6, 3.5]]
    assert [way.name for way in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert found.user_attrs["objectives"] == ["score", "seconds"]
    head, *front = caplog.text.partition("Pareto front ")[2].splitlines()
    assert head == "of 4 jobs:"
    assert [line.split(", optimizer.lr=")[0] for line in front] == [
        "  0, score 0.7, seconds 3",
        "  1, score 0.8, seconds 4",
        "  2, score 0.9, seconds 5",
    ]


@pytest.mark.parametrize(
    ("objective", "best"), [pytest.param("score", 2, marks=pytest.mark.slow), ("seconds", 0), ("test/loss", 1)]
)
def test_one_objective_that_is_not_the_score(objective, best, tmp_path, caplog):
    caplog.set_level("INFO")
    found = search(tmp_path, Traded(), objectives=[objective], n_trials=4)
    assert found.best_trial.number == best
    assert f"best of 4 jobs: {best}, {objective} " in caplog.text


def test_an_objective_that_jobs_turn_out_not_to_measure_ends_the_search(tmp_path):
    launcher = Traded()
    with pytest.raises(ConfigError, match=r"test/f1 is not among what the jobs measure \(test/acc, test/loss\)"):
        search(tmp_path, launcher, objectives=["test/f1"], n_trials=4)
    assert len(launcher.launched) == 1


@pytest.mark.slow
def test_tpe_searches_for_several_objectives_and_goes_on(tmp_path):
    settings = {"sampler": TPE, "n_trials": 14, "objectives": ["score", "parameters"]}
    whole = search(tmp_path / "whole", FakeLauncher(), **settings)
    with pytest.raises(Stop):
        search(tmp_path / "parts", FakeLauncher(stops=12), **settings)
    assert trials(search(tmp_path / "parts", FakeLauncher(), **settings)) == trials(whole)


def test_two_commands_do_not_share_a_study(tmp_path):
    with lock.hold(tmp_path), pytest.raises(ConfigError, match="another process is writing to"):
        search(tmp_path, FakeLauncher())


REFUSED = {
    "optimizer.lr=interval(0.1,0.01)": "optimizer.lr=interval(0.1,0.01): the lower end 0.1 is above the upper end 0.01",
    "optimizer.lr=interval(-1,0.1)": "optimizer.lr=-1.0: expected a number above 0",
    "optimizer.momentum=interval(0.5,1)": "optimizer.momentum=1.0: expected a number of at least 0 and below 1",
    "optimizer.lr=tag(log,interval(0,1))": "a logarithm needs a lower end above 0",
    "optimizer.lr=tag(lgo,interval(0.1,1))": "the only tag is log, of an interval",
    "optimizer.lr=tag(log,choice(0.1,1))": "the only tag is log, of an interval",
    "optimizer.lr=range(2,1)": "optimizer.lr=range(2,1): no value to choose",
    "optimizer.lr=range(1,2,0)": "optimizer.lr=range(1,2,0): range() arg 3 must not be zero",
    "optimizer.ler=interval(0.1,1)": "no key ler in optimizer; did you mean lr?",
    "modle=net,mynet": "no key modle; did you mean model?",
    "model=net,mynett": "no option mynett in model; did you mean mynet?",
    "data.batch_size=interval(8,16)": "data.batch_size=8.0: expected a whole number of at least 1",
    "trainer.max_epochs=range(0,3)": "trainer.max_epochs=0: expected a whole number of at least 1",
    "optimizer.lr=0.1": "nothing to search; type key=interval(low,high) or choose sweep=",
    "norm=nf,frn name=a,b": "name=choice(a,b): name is no setting of the jobs that could be searched",
    "seed=1,2 model=net,mynet": "seed=choice(1,2): a search would pick the luckiest seed. Search with one, then sweep",
    "data.split_seed=int(interval(0,9))": "a search would pick the luckiest data.split_seed",
    "sweep=optuna,other": "sweep=choice(optuna,other): one search at a time",
    "norm=nf,frn score=val/loss": "score=val/loss: for a search set score_mode=max or score_mode=min too",
    "norm=nf,frn hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0: expected a whole number of at least 1 or null",
    "norm=nf,frn hydra.sweeper.n_trial=3": "no key n_trial in hydra.sweeper; did you mean n_trials?",
    "norm=nf,frn hydra/sweeper/sampler=bayes": "no option bayes in hydra/sweeper/sampler (options: grid, random",
    "norm=nf,frn hydra/sweeper/pruner=medain": "no option medain in hydra/sweeper/pruner; did you mean median?",
    "norm=nf,frn hydra/sweeper/pruner=null": "no option null in hydra/sweeper/pruner (options: hyperband, median",
    "norm=nf,frn hydra/sweeper/pruner=median hydra.sweeper.pruner.n_warmup=1": "did you mean n_warmup_steps?",
    "norm=nf,frn hydra/sweeper/pruner=median hydra.sweeper.pruner.n_warmup_steps=-1": "a whole number of at least 0",
    "norm=nf,frn hydra/sweeper/pruner=percentile hydra.sweeper.pruner.percentile=101": "a number of at least 0",
    "norm=nf,frn hydra/sweeper/pruner=median hydra.sweeper.objectives=[score,seconds]": (
        "MedianPruner compares one objective, and there are score, seconds: add hydra/sweeper/pruner=none"
    ),
    "norm=nf,frn hydra/sweeper/pruner=median hydra.sweeper.objectives=[test/acc]": (
        "MedianPruner looks at each epoch, and test/acc is known at the end: add hydra/sweeper/pruner=none"
    ),
    "norm=nf,frn hydra.sweeper.objectives=[score,second]": "no objective second; did you mean seconds?",
    "norm=nf,frn hydra.sweeper.objectives=[test/auroc]": "no objective test/auroc",
    "norm=nf,frn hydra.sweeper.objectives=score": "hydra.sweeper.objectives=score: expected a list",
    "norm=nf,frn hydra.sweeper.objectives=[]": "hydra.sweeper.objectives=[]: expected a list",
    "norm=nf,frn hydra.sweeper.objectives=[score,score]": "each one once",
    "norm=nf,frn hydra.sweeper.confirm=0": "hydra.sweeper.confirm=0: expected a whole number of at least 1 or null",
    "norm=nf,frn hydra.sweeper.confirm=many": "hydra.sweeper.confirm=many: expected a whole number of at least 1",
    "norm=nf,frn hydra.sweeper.confirm=5 hydra.sweeper.objectives=[score,seconds]": (
        "hydra.sweeper.confirm=5 runs the best three again, and with score and seconds none is the best: seek one"
    ),
    "norm=nf,frn hydra.sweeper.confirm=5 hydra.sweeper.objectives=[test/acc]": (
        "hydra.sweeper.confirm=5 compares scores on the test part, and test/acc has the search look at it: seek score"
    ),
    "norm=nf,frn hydra.sweeper.confirm=5 seed=4294967291": (
        "seed=4294967291: hydra.sweeper.confirm=5 takes the 5 seeds above it, and 4294967295 is the largest; lower seed"
    ),
    "norm=nf,frn hydra.sweep.subdir=x": "hydra.sweep.subdir=x: trial k of a search has folder k; leave it out",
    "norm=nf,frn hydra.sweeper.sampler._partial_=false": "RandomSampler: its yaml needs _partial_: true",
    "hydra/sweeper/sampler=grid optimizer.lr=interval(0.1,1)": "a grid has no intervals; list values or use range",
    "action=lr_find norm=batch,group": "action= with -m: only fits are swept",
}


@pytest.mark.parametrize("typed", rest_slow(REFUSED, lambda case: case[0] in [*REFUSED][::2]))
def test_refused_before_the_first_job(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        check_sweep([*SEARCH, *typed.split()])
    assert REFUSED[typed] in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_search_is_looked_at_at_its_ends_only():
    """A thousand trials have no jobs to look at one by one."""
    check_sweep([*SEARCH, *SPACE, "trainer.max_epochs=range(1,1000)", "steps_per_execution=range(1,1000)"])
    check_sweep(["sweep=optuna", "model=net", "data=wine", "optimizer.lr=0.1"])
    check_sweep(["sweep=optuna", "task.metrics=[auroc]", "hydra.sweeper.objectives=[test/auroc,seconds]"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["optimizer.lr=interval(0.1,1)"], "an interval is searched, by hydra/sweeper=optuna; or list its values"),
        (["optimizer.lr=tag(log,interval(0.1,1))", "seed=1,2"], "optimizer.lr=tag(log,interval(0.1,1.0)): an interval"),
    ],
)
def test_a_plain_sweep_has_no_intervals(typed, message):
    with pytest.raises(ConfigError) as refusal:
        check_sweep(typed)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "typed", ["optimizer.lr=interval(0.1,1)", "optimizer.lr=0.1,0.2", "norm=glob(*)", "sweep=optuna"]
)
def test_one_run_has_one_value(typed):
    with pytest.raises(ConfigError, match=r"started with -m(; sweep=grid trains a single run)?$") as refusal:
        compose([typed])
    assert str(refusal.value).startswith(typed)


@pytest.mark.slow
def test_a_glob_sweeps_all_options():
    check_sweep(["norm=glob(*)", "model=net", "data=wine"])
    with pytest.raises(ConfigError, match="no value to choose"):
        check_sweep(["norm=glob(x*)"])


@pytest.mark.parametrize(
    ("typed", "needs", "extra"),
    [
        ("hydra/sweeper=optuna", "optuna", "optuna"),
        ("sweep=optuna", "optuna", "optuna"),
        ("hydra/launcher=joblib", "joblib", "joblib"),
        ("hydra/launcher=ray", "ray", "ray"),
        ("hydra/launcher=slurm", "submitit", "submitit"),
        ("hydra/launcher=submitit_slurm", "submitit", "submitit"),
        ("hydra/launcher=submitit_local", "submitit", "submitit"),
    ],
)
def test_a_missing_extra_is_named_before_hydra_looks_for_it(typed, needs, extra, monkeypatch):
    monkeypatch.setattr(names, "_installed", lambda distribution: False)
    with pytest.raises(ConfigError) as refusal:
        check_sweep([typed, "seed=1,2"])
    assert str(refusal.value) == f"{typed} needs {needs}, which is not installed: pip install -e '.[{extra}]'"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["trainer=slurm"], "torchrun or srun starts the processes of several nodes, and neither did"),
        (["hydra/launcher=slurm", "trainer=slurm"], "torchrun or srun starts the processes of several nodes"),
        (
            ["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2"],
            "trainer.devices=1, trainer.num_nodes=1: .*tasks_per_node=2 .*nodes=1 start 2 on each of 1; trainer=slurm",
        ),
        (["hydra/launcher=slurm", "hydra.launcher.nodes=2", "trainer=ddp_cpu"], "start 1 on each of 2; trainer=slurm"),
        (
            ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"],
            "hydra.launcher.tasks_per_node=2: outside of SLURM they would be runs apart; set 1 and trainer.devices=2",
        ),
    ],
)
def test_a_launcher_starts_the_processes_that_the_trainer_expects(typed, message):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match=message):
        check_sweep([*typed, "seed=1,2"])


def test_a_launcher_may_start_as_many_processes_as_the_trainer_expects():
    pytest.importorskip("submitit")
    check_sweep(["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=2", "trainer=slurm", "seed=1,2"])
    check_sweep(["hydra/launcher=submitit_local", "trainer=ddp_cpu", "seed=1,2"])


@pytest.mark.parametrize("task", [Classify, Regress])
def test_a_task_s_own_score_is_one_to_be_raised(task):
    """The sweeper takes it to be so where no score_mode is set."""
    options = {"num_classes": 2} if task is Classify else {"target_mean": torch.zeros(1), "target_std": torch.ones(1)}
    built = task(torch.nn.Linear(1, 1), partial(torch.optim.SGD, lr=1), lambda *_: None, **options)
    assert built.direction(task.score) == "max"


@pytest.mark.parametrize("task", [Classify, Regress])
def test_objectives_know_the_tasks_metrics(task):
    options = {"num_classes": 2} if task is Classify else {"target_mean": torch.zeros(1), "target_std": torch.ones(1)}
    network, plain = torch.nn.Linear(1, 1), partial(torch.optim.SGD, lr=1)
    own = task(network, plain, lambda *_: None, **options)
    every = task(network, plain, lambda *_: None, metrics=list(own.available_metrics()), **options)
    check_objectives([name.replace("train/", "test/") for name in own.metric_names()], None)
    for name in ("val/loss", *(f"val/{metric}" for metric in own.available_metrics())):
        assert direction(name, None) == f"{every.direction(name)}imize", name


def test_optuna_is_imported_by_a_search_only():
    code = "import sys, normlab.app; print({'optuna', 'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
