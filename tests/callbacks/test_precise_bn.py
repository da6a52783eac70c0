"""Precise statistics in training: checkpoints hold those of the training part for their own weights."""

import itertools

import pytest
import torch
from helpers.asking import assert_goes_on
from helpers.cases import rest_slow
from helpers.folders import weights
from helpers.precise import assert_precise

from normlab import compose, run
from normlab.errors import ConfigError

WINE = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=3", "data.batch_size=20"]
PRECISE = [*WINE, "callbacks=precise_bn", "callbacks.precise_bn.in_order=true"]


@pytest.mark.parametrize(
    "more",
    [pytest.param([], marks=pytest.mark.slow), ["steps_per_execution=3"], ["trainer.check_val_every_n_epoch=2"]],
    ids=str,
)
def test_checkpoints_have_precise_statistics_and_the_weights_of_a_run_without(tmp_path, more):
    run(compose([*PRECISE, *more]), folder=tmp_path / "precise")
    assert_precise(tmp_path / "precise", [*PRECISE, *more])
    run(compose([*WINE, *more]), folder=tmp_path / "plain")
    precise, plain = weights(tmp_path / "precise"), weights(tmp_path / "plain")
    changed = {name for name, values in plain.items() if not torch.equal(values, precise[name])}
    assert changed == {name for name in plain if "running_" in name}


MOMENTS = [("on_train_batch_start", 9), ("on_validation_batch_start", 3)]


@pytest.mark.parametrize(
    ("norm", "moment"),
    rest_slow(itertools.product(["batch", "renorm"], MOMENTS), lambda case: case == ("renorm", MOMENTS[1])),
    ids=str,
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path, norm, moment):
    assert_goes_on(tmp_path, [*WINE, f"norm={norm}", "callbacks=precise_bn"], moment)


def test_a_frozen_layer_stays(tmp_path):
    run(compose(WINE), folder=tmp_path / "first")
    first = weights(tmp_path / "first")
    name = next(key.rpartition(".")[0] for key in first if key.endswith("running_mean"))
    overrides = [*PRECISE, f"init={tmp_path}/first", f"freeze={name.removeprefix('network.')}"]
    run(compose(overrides), folder=tmp_path / "second")
    second = weights(tmp_path / "second")
    assert torch.equal(first[f"{name}.running_mean"], second[f"{name}.running_mean"])


def test_a_network_without_running_statistics_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="callbacks=precise_bn: no norm layer of this network keeps running statistics"
    ):
        run(compose([*PRECISE, "norm=layer"]), folder=tmp_path / "run")
