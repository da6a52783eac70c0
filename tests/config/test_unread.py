"""Keys that nobody reads are refused, wherever they stand and wherever they came from."""

import pytest
from helpers.cases import rest_slow
from omegaconf import OmegaConf

from normlab import compose, run
from normlab.config.source import forget
from normlab.errors import ConfigError

PLACES = ["", "task", "trainer", "model", "norm", "data", "optimizer", "scheduler", "callbacks", "logger"]
SMALL = ["model=net", "data=wine", "logger=none", "trainer=debug"]


def written(place: str) -> str:
    """Yaml with a key that nobody reads at a place."""
    return f"{place}: {{nobody: 3}}" if place else "nobody: 3"


def refused(overrides, tmp_path, change=None):
    """What is said to a configuration, before any training."""

    def start():
        composed = compose([*SMALL, *overrides])
        if change:
            OmegaConf.update(composed, change, 3, force_add=True)
        run(composed, folder=tmp_path / "run")

    with pytest.raises(ConfigError) as refusal:
        start()
    assert not (tmp_path / "run" / "metrics.csv").exists()
    return str(refusal.value)


@pytest.mark.parametrize("place", rest_slow(PLACES, lambda case: case[0] in ("", "norm")))
def test_a_key_that_nobody_reads_is_refused(place, conf, tmp_path):
    """Typed, in an experiment, in conf/local with and without a package header, and set from Python."""
    key = f"{place}.nobody".removeprefix(".")
    said = [refused([f"+{key}=3"], tmp_path), refused([], tmp_path, change=key)]
    (conf / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{written(place)}\n")
    said.append(refused(["experiment=mine"], tmp_path))
    (conf / "local").mkdir()
    for header in ("", "# @package _global_\n"):
        (conf / "local" / "default.yaml").write_text(header + written(place) + "\n")
        forget()
        said.append(refused([], tmp_path))
    assert all("nobody" in line for line in said), said


def test_the_nearest_key_is_named(conf):
    (conf / "experiment" / "mine.yaml").write_text("# @package _global_\ntraner: {x: 1}\n")
    with pytest.raises(ConfigError, match="no key traner; did you mean trainer?"):
        compose(["experiment=mine"])


def test_an_experiment_without_its_first_line_is_told_of_it(conf):
    (conf / "experiment" / "mine.yaml").write_text("optimizer: {lr: 0.5}\n")
    with pytest.raises(ConfigError, match="conf/experiment .* first line has to be # @package _global_"):
        compose(["experiment=mine"])


@pytest.mark.parametrize("header", ["", "# @package _global_\n"])
def test_conf_local_is_honoured_as_it_is_written(conf, header):
    (conf / "local").mkdir()
    text = "defaults:\n  - override /optimizer: adamw\ntrainer: {max_epochs: 7}\nseed: 5\n"
    (conf / "local" / "default.yaml").write_text(header + text)
    composed = compose(["optimizer.lr=0.3"])
    assert (composed.trainer.max_epochs, composed.seed, composed.optimizer._target_) == (7, 5, "torch.optim.AdamW")
    assert "local" not in composed
    assert compose(["seed=9"]).seed == 9  # what is typed wins


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("+model.input_shape=[3]", "model.input_shape is given by normlab; it comes from the data"),
        ("+model.norm=3", "model.norm is given by normlab; choose norm="),
        ("+scheduler.total_steps=5", "scheduler.total_steps is given by normlab; set trainer.max_epochs="),
        ("+optimizer.params=5", "optimizer: .*params"),
        ("+callbacks.early_stopping.monitor=train/loss", "early_stopping.monitor is given by normlab; set score="),
        ("+callbacks.early_stopping.mode=min", "early_stopping.mode is given by normlab; set score= and score_mode="),
    ],
)
def test_a_key_that_normlab_sets_itself_is_refused(typed, named, tmp_path):
    """It would be overwritten in silence."""
    with pytest.raises(ConfigError, match=named):
        run(compose([*SMALL, "callbacks=early_stopping", typed]), folder=tmp_path)
