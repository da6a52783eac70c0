"""Statistics that stand still from an epoch on, and those that follow ever more batches."""

import pytest
import torch
from helpers.asking import assert_goes_on
from helpers.cases import rest_slow
from lightning import Callback
from torch import nn

from normlab import compose, run
from normlab.errors import ConfigError

WINE = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=3", "data.batch_size=20"]
FREEZES = ["callbacks=freeze_statistics", "callbacks.freeze_statistics.start=0.3"]
SCHEDULES = ["callbacks=momentum_schedule"]


class Statistics(Callback):
    """Notes running means and what the first norm layer gives, after each batch."""

    def __init__(self):
        self.means, self.batches, self.momenta = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.layer = next(m for m in pl_module.modules() if isinstance(m, nn.BatchNorm1d))
        self.layer.register_forward_hook(lambda _, args, output: self.seen.update(x=args[0], y=output.clone()))
        self.seen = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        layer = self.layer
        evaluated = (self.seen["x"] - layer.running_mean) * (layer.running_var + layer.eps).rsqrt()
        self.means.append(layer.running_mean.clone())
        self.momenta.append(layer.momentum)
        self.batches.append((evaluated, self.seen["y"], trainer.current_epoch, layer.weight.clone()))


def test_from_its_epoch_on_statistics_stand_still_and_training_uses_them(tmp_path):
    notes = Statistics()
    run(compose([*WINE, *FREEZES]), folder=tmp_path / "run", callbacks=[notes])
    assert not torch.equal(notes.means[4], notes.means[5])
    assert all(torch.equal(mean, notes.means[5]) for mean in notes.means[6:])
    normalised, output, epoch, _ = notes.batches[6]
    assert epoch == 1
    assert torch.corrcoef(torch.stack([normalised[:, 0], output[:, 0]]))[0, 1].abs() > 0.9999
    assert not torch.equal(notes.batches[6][3], notes.batches[-1][3]), "γ goes on learning"


def test_the_share_goes_from_the_first_to_the_last_by_the_same_factor(tmp_path):
    notes = Statistics()
    run(compose([*WINE, *SCHEDULES]), folder=tmp_path / "run", callbacks=[notes])
    assert notes.momenta[::6] == pytest.approx([0.1, 0.1**1.5, 0.01])


@pytest.mark.parametrize(
    ("callback", "count"),
    rest_slow(
        [(FREEZES, 9), (SCHEDULES, 9), (FREEZES, 4), (SCHEDULES, 4)],
        lambda case: case in ((FREEZES, 9), (SCHEDULES, 4)),
    ),
    ids=str,
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path, callback, count):
    assert_goes_on(tmp_path, [*WINE, *callback], ("on_train_batch_start", count))


@pytest.mark.parametrize(
    ("callback", "norm", "message"),
    [
        (FREEZES, "layer", "callbacks=freeze_statistics: no norm layer of this network keeps running statistics"),
        (SCHEDULES, "layer", "callbacks=momentum_schedule: no norm layer of this network keeps running statistics"),
        (
            SCHEDULES,
            "mabn",
            r"callbacks=momentum_schedule: \S+ \(MABNLayer\) has no momentum",
        ),
    ],
)
def test_refusals(tmp_path, callback, norm, message):
    with pytest.raises(ConfigError, match=message):
        run(compose([*WINE, *callback, f"norm={norm}"]), folder=tmp_path / "run")
