"""torch's schedules by configuration, against a plain loop of torch: rates, and resuming."""

import csv
from itertools import pairwise, product
from typing import ClassVar

import pytest
import torch

from normlab import compose, run
from normlab.errors import ConfigError

SMALL = ["model=net", "data=wine", "logger=none", "data.batch_size=64", "trainer.max_epochs=4", "optimizer.lr=0.1"]
TORCHS = {
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.7},
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "LinearLR": {"start_factor": 0.1, "total_iters": 3},
    "PolynomialLR": {"total_iters": 6, "power": 2.0},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
}


class Seen(torch.optim.SGD):
    """Keeps the rate of each step."""

    rates: ClassVar[list[float]] = []

    def step(self, closure=None):
        Seen.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


def configured(name, interval, *more):
    keys = [f"+scheduler.{key}={value}" for key, value in TORCHS[name].items()]
    target = f"scheduler._target_=torch.optim.lr_scheduler.{name}"
    own = ["optimizer._target_=test_schedulers.Seen", "optimizer.lr=0.1", "optimizer.momentum=0.9"]
    return compose([*SMALL, target, *keys, f"+scheduler.interval={interval}", *own, *more])


def expected(name, interval, steps, epochs):
    """The rate of each step in a loop of torch's own documentation."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **TORCHS[name])
    rates = []
    for _ in range(epochs):
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if interval == "step":
                scheduler.step()
        if interval == "epoch":
            scheduler.step()
    return rates


QUICK = [(name, interval, 1) for name, interval in (("StepLR", "epoch"), ("CosineAnnealingLR", "step"))]
OTHERS = [case for case in product(TORCHS, ["epoch", "step"], [1, 4]) if case not in QUICK]


@pytest.mark.parametrize(
    ("name", "interval", "steps_per_execution"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_torchs_schedules_give_the_rates_of_a_plain_loop(name, interval, steps_per_execution, tmp_path):
    """Also where the run is stopped after three of the epochs and resumed."""
    Seen.rates = []
    execution = f"steps_per_execution={steps_per_execution}"
    run(configured(name, interval, execution, "trainer.max_epochs=3"), folder=tmp_path)
    run(configured(name, interval, execution, "trainer.max_epochs=5", "extend=true"), folder=tmp_path)
    assert Seen.rates == pytest.approx(expected(name, interval, 2, 5), rel=1e-9)


def rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("monitor", ["val/loss", pytest.param("null", marks=pytest.mark.slow)])
def test_a_plateau_is_found_by_the_metric_and_its_good_end(monitor, tmp_path):
    """Against torch's own class, told what metrics.csv says; resumed after the third epoch."""
    Seen.rates = []
    own = ["optimizer._target_=test_schedulers.Seen", "optimizer.lr=0.3", "scheduler=plateau", "scheduler.patience=0"]
    own += ["+scheduler.threshold=0.3"]  # better by so much, or it is a plateau
    typed = [*SMALL, *own, f"scheduler.monitor={monitor}"]
    run(compose([*typed, "trainer.max_epochs=3"]), folder=tmp_path)
    run(compose([*typed, "trainer.max_epochs=8", "extend=true"]), folder=tmp_path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    mode = "min" if monitor == "val/loss" else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, patience=0, threshold=0.3)
    rates = []
    for row in rows(tmp_path):
        rates += [optimizer.param_groups[0]["lr"]] * 2
        scheduler.step(float(row["val/loss" if monitor == "val/loss" else "val/acc"]))
    assert Seen.rates == pytest.approx(rates)
    assert any(a != b for a, b in pairwise(rates))  # it has fallen at least once


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["scheduler=plateau", "scheduler.monitor=val/nope"], "score=val/nope: expected one of val/loss"),
        (["scheduler=plateau", "+scheduler.interval=step"], "measured at the end of an epoch; use epoch"),
        (["scheduler=plateau", "+scheduler.mode=min"], "scheduler.mode is given by normlab"),
        (["scheduler=step", "+scheduler.monitor=val/acc"], "this one looks at no metric"),
        (["+scheduler.interval=epoch"], "spreads its plan over the steps of the run; use step"),
        (["scheduler=none", "+scheduler.interval=weekly"], "scheduler.interval=weekly: expected step or epoch"),
        (["scheduler._target_=torch.optim.lr_scheduler.StepLR"], "scheduler: .*missing .* 'step_size'"),
        (["scheduler._target_=torch.optim.lr_scheduler.LambdaLR"], "scheduler: .*missing .* 'lr_lambda'"),
        (["scheduler=none", "optimizer._target_=torch.optim.LBFGS"], "LBFGS looks at a batch several times"),
        (["scheduler=none", "optimizer._target_=torch.nn.Identity"], "Identity is no optimizer"),
        (["optimizer.momentum=0"], "optimizer: Nesterov momentum requires a momentum"),
    ],
)
def test_what_cannot_train_is_refused_before_training(typed, named, tmp_path):
    with pytest.raises(ConfigError, match=named):
        run(compose([*SMALL, *typed]), folder=tmp_path)
    assert not (tmp_path / "metrics.csv").exists()


def test_what_was_refused_leaves_the_name(tmp_path):
    with pytest.raises(ConfigError, match="scheduler: .*missing .* 'step_size'"):
        run(compose([*SMALL, "scheduler._target_=torch.optim.lr_scheduler.StepLR"]), folder=tmp_path)
    assert run(compose([*SMALL, "trainer.max_epochs=1"]), folder=tmp_path).score is not None
