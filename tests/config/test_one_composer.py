"""What is checked is what runs: a run is composed once, and a job of a sweep as its own command line would be."""

import sys
from types import SimpleNamespace

import pytest
from helpers.cases import options, rest_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from normlab import app, compose
from normlab.config import compose as composing
from normlab.runner import run as running

GROUPS = ("model", "norm", "data", "optimizer", "scheduler", "callbacks", "trainer")
NEEDS_MORE = {"image_folder", "csv", "parquet", "openml", "torchvision", "timm", "torchrun", "slurm", "ddp", "fsdp"}
KEYS = {
    "seed": st.integers(0, 10**6),
    "optimizer.lr": st.floats(1e-6, 1, allow_nan=False),
    "optimizer.weight_decay": st.floats(0, 1, allow_nan=False),
    "trainer.max_epochs": st.integers(1, 10**6),
    "data.batch_size": st.integers(2, 999),
    "data.split_seed": st.integers(0, 99),
    "score": st.sampled_from(["val/loss", "val/acc"]),
    "compile": st.sampled_from(["true", "false"]),
    "nonfinite": st.sampled_from(["raise", "skip"]),
    "name": st.from_regex(r"[a-z][a-z0-9_]{0,8}(/[a-z0-9]{1,4})?", fullmatch=True),
    "+trainer.val_check_interval": st.sampled_from([1.0, 0.5]),
}


@st.composite
def command_lines(draw) -> list[str]:
    chosen = draw(st.lists(st.sampled_from(GROUPS), unique=True))
    lines = [f"{group}={draw(st.sampled_from([o for o in options(group) if o not in NEEDS_MORE]))}" for group in chosen]
    typed = draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True))
    return draw(st.permutations(lines + [f"{key}={draw(KEYS[key])}" for key in typed]))


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The configurations that reach a run, which itself does nothing; and how often one was composed."""
    monkeypatch.chdir(tmp_path)
    found = SimpleNamespace(configs=[], composed=0)
    original = composing.compose_job

    def counted(*args, **kwargs):
        found.composed += 1
        return original(*args, **kwargs)

    def run(config, folder):
        found.configs.append(config)
        return SimpleNamespace(score=0.5)

    monkeypatch.setattr(composing, "compose_job", counted)
    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "run_job", run)
    return found


def command(*words: str) -> int:
    before = sys.argv
    sys.argv = ["train.py", *words]
    try:
        with pytest.raises(SystemExit) as end:
            app.main()
    finally:
        sys.argv = before
    return end.value.code


def same(found, expected) -> bool:
    """The same values of the same types, wherever they stand."""
    return repr(OmegaConf.to_container(found)) == repr(OmegaConf.to_container(expected))


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.endurance)])
def test_the_configuration_that_was_checked_is_the_one_that_runs(examples, ran):
    each = given(lines=command_lines())(lambda lines: assert_runs_as_checked(lines, ran))
    settings(derandomize=True, deadline=None, database=None, max_examples=examples)(each)()


def assert_runs_as_checked(lines, ran):
    ran.configs.clear()
    ran.composed = 0
    try:
        expected = compose(lines)
    except ValueError:
        assert command(*lines) == 2
        assert ran.configs == []
        return
    ran.composed = 0
    assert command(*lines) == 0
    (config,) = ran.configs
    assert same(config, expected)
    assert ran.composed == 1


@pytest.mark.parametrize(
    "group",
    rest_slow((group for group in GROUPS if group != "trainer"), lambda case: case[0] in ("model", "scheduler")),
)
def test_every_option_reaches_the_run_as_it_was_checked(group, ran):
    for option in options(group):
        if option not in NEEDS_MORE:
            ran.configs.clear()
            words = [f"{group}={option}"]
            assert command(*words) == 0
            assert same(ran.configs[0], compose(words))


def test_a_job_of_a_sweep_runs_what_its_own_command_line_would(ran):
    words = ["model=net,mlp", "norm=batch,group", "data=wine", "optimizer.lr=0.1", "name=s"]
    jobs = [
        ["data=wine", "name=s", f"model={model}", f"norm={norm}", "optimizer.lr=0.1"]
        for model in ("net", "mlp")
        for norm in ("batch", "group")
    ]
    wanted = [compose(lines) for lines in jobs]
    assert command("-m", *words) == 0
    for config, expected, lines in zip(ran.configs, wanted, jobs, strict=True):
        expected.overrides = config.overrides  # in the order in which they were typed
        assert sorted(config.overrides) == sorted(lines)
        assert same(config, expected)
