"""`sweep=fair` with Optuna: points that look at scores, and trials that end early."""

import json
from statistics import median

import pytest
from helpers.fair_sweeps import Stop, compared, fair_sweep, told

from normlab.errors import ConfigError
from normlab.sweeps.fair.folders import Folders
from normlab.sweeps.fair.plan import Plan
from normlab.sweeps.fair.pruned import ArmStudy
from normlab.sweeps.study import load_trial

optuna = pytest.importorskip("optuna")

TPE = ["norm=batch,none", "fair.sampler=tpe", "fair.trials=11", "fair.seeds=1"]


def rates(arm) -> list[float]:
    return [trial["point"]["optimizer.lr"] for trial in arm["trials"]]


def test_tpe_begins_with_the_shared_points_and_then_follows_the_scores_of_its_arm(tmp_path):
    """The arms are best at 0.05 and at 0.003; a stopped sweep chooses what it would have chosen."""
    _, fair = fair_sweep(tmp_path / "whole", *TPE)
    batch, none = map(rates, fair["arms"])
    assert batch[:5] == none[:5]
    assert median(batch[5:]) > 3 * median(none[5:])
    with pytest.raises(Stop):
        fair_sweep(tmp_path / "parts", *TPE, stops=15)
    assert fair_sweep(tmp_path / "parts", *TPE)[1] == fair


def test_tpe_follows_the_scores_where_every_job_could_run_at_once(tmp_path):
    launcher, fair = fair_sweep(tmp_path, *TPE, workers=100)
    batch, none = map(rates, fair["arms"])
    assert median(batch[5:]) > 3 * median(none[5:])
    assert launcher.most == 10  # five of each arm
    assert len(launcher.launched) == 24


def test_a_trial_is_pruned_by_those_of_its_own_arm(tmp_path):
    """A second trial below the first one's score is to end; the other arm's trials have scores that would keep it."""
    typed = ["norm=batch,group", "fair.trials=2", "hydra/sweeper/pruner=median"]
    fair = compared(*typed, "hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=0")
    plan = Plan(fair, Folders(tmp_path), lambda arm: lambda trials: {"optimizer.lr": 0.01 * (1 + len(trials))})
    verdicts = {}
    for arm, score in zip(plan.arms, (0.9, 0.1), strict=True):
        study = ArmStudy(tmp_path, arm.arm, fair.pruner)
        first, second = arm.trials
        study.begin(first)
        load_trial(tmp_path / str(first.number)).report(score, 0)
        first.over, first.result = True, {"status": "finished", "score": score}
        study.end(first)
        assert load_trial(tmp_path / str(first.number)) is None
        study.begin(second)
        study.begin(second)  # its job was killed, and begins again
        trial = load_trial(tmp_path / str(second.number))
        assert (trial.number, trial.params) == (1, second.point)
        trial.report(0.5, 0)
        verdicts[arm.arm.name] = trial.should_prune()
    assert verdicts == {"norm=batch": True, "norm=group": False}


def test_one_rule_holds_for_all_trials_and_fresh_runs_have_none(tmp_path):
    typed = ["norm=batch", "fair.trials=1", "fair.seeds=1"]
    _, fair = fair_sweep(tmp_path, *typed, "hydra/sweeper/pruner=median")
    assert fair["pruner"] == "median"
    assert json.loads((tmp_path / "0" / "trial.json").read_text())["trial"] == 0
    assert not (tmp_path / "1" / "trial.json").exists()
    with pytest.raises(ConfigError, match="pruner=none: the trials that are there had median"):
        fair_sweep(tmp_path, *typed)
    assert told(tmp_path) == fair
