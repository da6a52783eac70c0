"""The arms of `sweep=fair`, what is tuned within each, and what is refused before the first job."""

import pytest
from omegaconf import OmegaConf

from normlab import compose
from normlab.config.compose import check, compose_job
from normlab.config.source import OURS
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash

SMALL = ["sweep=fair", "model=net", "data=wine"]
RATE = "tag(log,interval(0.001,1))"


def arms(*typed: str) -> dict[str, dict[str, str]]:
    """The space of each arm."""
    fair = check_sweep([*SMALL, *typed]).fair
    assert fair is not None
    return {arm.name: {key: str(values) for key, values in arm.space.items()} for arm in fair.arms}


def test_lists_span_the_arms_and_the_rest_is_tuned_where_it_is_there():
    size = "norm.size=tag(tune,choice(4,8,16))"
    assert arms("norm=ghost,batch", f"optimizer.lr={RATE}", size, "data.batch_size=16,32", "fair.trials=3") == {
        f"norm={norm} data.batch_size={batch}": {"optimizer.lr": "tag(log,interval(0.001,1.0))"}
        | ({"norm.size": "choice(4,8,16)"} if norm == "ghost" else {})
        for norm in ("ghost", "batch")
        for batch in (16, 32)
    }


def test_the_rate_is_tuned_around_that_of_each_optimizer():
    """The options say 0.02 and 0.001."""
    assert arms("optimizer=sgd,adamw") == {
        "optimizer=sgd": {"optimizer.lr": "tag(log,interval(0.000667,0.6))"},
        "optimizer=adamw": {"optimizer.lr": "tag(log,interval(3.33e-05,0.03))"},
    }
    assert arms() == {"model=net data=wine": {"optimizer.lr": "tag(log,interval(0.000667,0.6))"}}


@pytest.mark.parametrize(
    ("over", "vary"),
    [
        pytest.param(["fair.over=seed"], [{"seed": 6}, {"seed": 7}], marks=pytest.mark.slow),
        (["fair.over=data.split_seed"], [{"seed": 6, "data.split_seed": 1}, {"seed": 7, "data.split_seed": 2}]),
        (
            ["fair.over=data.fold", "data.folds=4", "data.fold=1"],
            [{"seed": 6, "data.fold": 0}, {"seed": 7, "data.fold": 2}],
        ),
    ],
)
def test_jobs_are_what_their_process_composes_and_fresh_ones_have_seeds_that_tuning_never_had(over, vary):
    fair = check_sweep([*SMALL, "norm=batch,ghost", "seed=5", "fair.seeds=2", *over]).fair
    assert fair is not None
    point = {"optimizer.lr": 0.03}
    fresh = [fair.fresh(fair.arms[1], point, number) for number in (1, 2)]
    trial = fair.trial(fair.arms[1], point)
    for job in (trial, *fresh):
        assert job.config_hash == config_hash(compose_job(job.overrides).config)
        assert not [line for line in job.overrides if line.startswith("fair.")]
    composed = [compose_job(job.overrides).config for job in fresh]
    assert [{key: OmegaConf.select(config, key) for key in vary[0]} for config in composed] == vary
    assert [config.test for config in composed] == [True, True]
    tuned = compose_job(trial.overrides).config
    assert (tuned.seed, tuned.test, tuned.optimizer.lr) == (5, False, 0.03)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("fair.trials=0", "fair.trials=0: expected a whole number of at least 1"),
        ("fair.seeds=0", "fair.seeds=0: expected a whole number of at least 1"),
        ("fair.trails=3", "no key trails in fair; did you mean trials"),
        ("+fair.trails=3", "no key trails in fair; did you mean trials"),
        ("fair.trials=3,4", "fair.trials is no setting by which arms could differ"),
        ("norm=batch,gohst", "no option gohst in norm; did you mean ghost"),
        ("norm.sise=interval(1,2)", "no key sise in norm"),
        ("optimizer.lr=0.1", "norm=batch has nothing to tune: let optimizer.lr= out"),
        ("optimizer.lr=0.1,0.2", "optimizer.lr=0.1 has nothing to tune"),
        ("optimizer.lr=interval(0.5,1)", r"0.02, which .*norm=batch has without tuning, lies outside; widen"),
        (
            "optimizer.lr=range(0.01,0.05,0.01) fair.trials=9",
            "has 5 points to choose from, and fair.trials=9",
        ),
        ("optimizer.lr=tag(tune,interval(0.01,1))", "the only tag is log, of an interval, and tune, of choices"),
        ("seed=1,2", "fair.seeds= says how many"),
        ("data.fold=0,1", "by fair.over=data.fold"),
        ("compile=true,false", "compile=true and compile=false are the same run"),
        ("test=true", "test= with sweep=fair"),
        ("fair.over=data.fold fair.seeds=10", "set data.folds=11, one for tuning and 10 others"),
        ("fair.over=data.fold fair.seeds=10 data.folds=5", "4 are left; set fair.seeds=4"),
        ("hydra/sweeper/pruner=median score=val/loss", "score=val/loss with a pruner: set score_mode=max"),
        ("hydra/sweeper/pruner=medain", "no option medain in hydra/sweeper/pruner; did you mean median"),
        ("fair.budget=seconds", "such as fair.seconds=600"),
        ("fair.seconds=60", "counts with fair.budget=seconds"),
        ("fair.budget=seconds fair.seconds=9 fair.trials=3", "the time says how many; leave out one"),
    ],
)
def test_bad_input_is_one_line(typed, message):
    norm = [] if "norm=" in typed else ["norm=batch"]
    with pytest.raises(ConfigError, match=message) as refused:
        check_sweep([*SMALL, *norm, *typed.split()])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("typed", [["seed=1,2"], ["sweep=optuna"]])
def test_the_keys_of_fair_are_refused_with_another_sweep(typed):
    with pytest.raises(ConfigError, match=r"fair.trials=3: the keys of fair belong to -m sweep=fair"):
        check_sweep(["fair.trials=3", *typed])


def test_a_tag_of_fair_means_nothing_to_another_sweep():
    with pytest.raises(ConfigError, match=r"the only tag is log, of an interval$"):
        check_sweep(["norm=tag(tune,choice(batch,group))"])


def test_a_run_has_no_keys_of_fair():
    assert "fair" not in compose([])
    with pytest.raises(ConfigError, match="the keys of fair belong to -m sweep=fair"):
        compose(["fair.seeds=3"])


def test_an_experiment_may_set_the_keys(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nfair: {trials: 3, seeds: 2}\n"
    (tmp_path / "experiment" / "which.yaml").write_text(text)
    source = OURS.also([str(tmp_path)], "--config-dir")
    fair = check_sweep([*SMALL, "experiment=which", "norm=batch,group", "fair.seeds=5"], source).fair
    assert fair is not None
    assert (fair.trials, fair.seeds, len(fair.arms)) == (3, 5, 2)
    assert "fair" not in fair.arms[0].config
    with pytest.raises(ConfigError, match=r"fair.trials=3: the keys of fair belong to -m sweep=fair"):
        check_sweep(["experiment=which", "norm=batch,group"], source)


@pytest.fixture
def comparison(tmp_path):
    """Options with an experiment that is a whole fair comparison."""
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /sweep: fair\n  - override /data: wine\n"
    text += "hydra: {sweeper: {params: {norm: 'batch,group'}}}\nfair: {trials: 3, seeds: 2}\n"
    (tmp_path / "experiment" / "which.yaml").write_text(text)
    return OURS.also([str(tmp_path)], "--config-dir")


def test_an_experiment_may_be_a_whole_comparison(comparison):
    fair = check_sweep(["experiment=which", "model=net"], comparison).fair
    assert fair is not None
    assert (fair.trials, fair.seeds, [arm.name for arm in fair.arms]) == (3, 2, ["norm=batch", "norm=group"])
    fair = check_sweep(["experiment=which", "model=net", "norm=none,layer"], comparison).fair
    assert fair is not None
    assert [arm.name for arm in fair.arms] == ["norm=none", "norm=layer"]


def test_a_run_of_such_an_experiment_is_asked_for(comparison):
    with pytest.raises(ConfigError, match=r"^sweep=fair is started with -m; sweep=grid trains a single run$"):
        check(["experiment=which"], comparison)
    alone = check(["experiment=which", "sweep=grid", "model=net"], comparison).config
    assert alone.data._target_.endswith("Wine")
    assert "fair" not in alone
    with pytest.raises(ConfigError, match="fair.trials=5: the keys of fair belong to -m sweep=fair"):
        check(["experiment=which", "sweep=grid", "fair.trials=5"], comparison)
