"""A step reads nothing of the device, and an epoch's end little: a GPU would wait for each read.

A counter stands in for a GPU, and the CPU looks at values as late as a GPU would.
"""

import itertools

import pytest
import torch
from helpers.cases import options, rest_slow
from helpers.scaling import Scaled
from helpers.waits import Reads
from lightning import Callback, LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from normlab import compose, run
from normlab.data.fake import Fake
from normlab.errors import ConfigError
from normlab.tasks import looks

OF_TORCHMETRICS = 2  # f1 counts classes by torch.bincount, once for training and once for validation


class LastEpoch(Callback):
    """Counts the reads of the second of two epochs, with its validation, its end and what is saved then."""

    def __init__(self, reads: Reads):
        self.reads = reads

    def on_train_start(self, trainer, task):
        self.reads.place([*task.parameters(), *task.buffers(), getattr(trainer.datamodule, "splits", None)])

    def on_train_epoch_start(self, trainer, task):
        self.reads.counts.clear()

    def on_train_end(self, trainer, task):
        self.counts = self.reads.counts.copy()


def reads_of_an_epoch(folder, monkeypatch, *overrides, lag=2, data=None, callbacks=lambda reads: []):
    reads, arrived = Reads(), looks.Sent.arrived
    monkeypatch.setitem(looks.LAGS, "cpu", lag)
    monkeypatch.setattr(looks.Sent, "arrived", lambda sent: reads.fetched(arrived(sent)))
    last = LastEpoch(reads)
    settings = ["logger=none", "trainer=cpu", "trainer.max_epochs=2", "test=false", "task.class_weights=balanced"]
    images = Fake(size=8, channels=3, samples=60, classes=3, batch_size=8, drop_last=True, crop=1, cutout=2, flip=True)
    with reads:
        run(compose([*settings, *overrides]), folder, data or images, [last, *callbacks(reads)])
    return last.counts


CASES = {
    "sgd": [],
    "adamw": ["optimizer=adamw"],
    "skip": ["nonfinite=skip"],
    "many steps": ["steps_per_execution=3"],
    "accumulated": ["trainer.accumulate_grad_batches=2"],
    "clipped": ["trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"],
    "agc": ["callbacks=agc", "norm=nf"],
}


@pytest.mark.parametrize("case", rest_slow(CASES, lambda case: case[0] in ("many steps", "agc")))
def test_of_an_epoch(tmp_path, monkeypatch, case):
    counts = reads_of_an_epoch(tmp_path, monkeypatch, "model=my_model", *CASES[case])
    assert counts.pop("aten.bincount") <= OF_TORCHMETRICS
    assert not counts


@pytest.mark.parametrize(
    "overrides", rest_slow([[], ["optimizer=adamw", "trainer.gradient_clip_val=1"]], lambda case: case == [])
)
def test_of_scaled_losses(tmp_path, monkeypatch, overrides):
    counts = reads_of_an_epoch(tmp_path, monkeypatch, "model=my_model", *overrides, callbacks=lambda reads: [Scaled()])
    assert counts.pop("aten._local_scalar_dense") == 2  # a checkpoint holds the scale and how long it has been so
    assert counts.pop("aten.bincount") <= OF_TORCHMETRICS
    assert not counts


@pytest.mark.slow
@pytest.mark.parametrize("callback", ["ema", "precise_bn"])
def test_of_estimated_statistics(tmp_path, monkeypatch, callback):
    """Two reads for all layers and batches of a pass: whether any was not finite, and the counts."""
    counts = reads_of_an_epoch(tmp_path, monkeypatch, "model=my_model", f"callbacks={callback}")
    assert counts.pop("torch.Tensor.tolist") <= 2
    assert counts.pop("aten.bincount") <= OF_TORCHMETRICS
    assert not counts


PAIRS = [  # each norm and each network in CI; all pairs before a release
    pytest.param(model, norm, marks=pytest.mark.slow if model == "mynet" or norm == "batch" else pytest.mark.endurance)
    for model, norm in itertools.product(options("model"), options("norm"))
]


@pytest.mark.parametrize(("model", "norm"), PAIRS)
def test_of_every_network_with_every_norm(tmp_path, monkeypatch, model, norm):
    try:
        counts = reads_of_an_epoch(tmp_path, monkeypatch, f"model={model}", f"norm={norm}")
    except ConfigError as error:  # tests/test_conf.py asks for which pairs
        pytest.skip(str(error))
    assert counts.pop("aten.bincount") <= OF_TORCHMETRICS
    assert not counts


class FromOneDomain(LightningDataModule):
    """Batches of eight samples, which say that they are of domain 1."""

    task, input_shape, out_features = "classify", (4,), 2

    def train_dataloader(self):
        x, y = torch.randn(32, 4), torch.arange(32) % 2
        return DataLoader(TensorDataset(x, y, torch.ones(32, dtype=torch.long)), batch_size=8)

    val_dataloader = train_dataloader


class OnDevice(Callback):
    """Places each batch on the device when it has been sent there."""

    def __init__(self, reads):
        self.reads = reads

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.reads.place(batch)

    def on_validation_batch_start(self, trainer, task, batch, batch_idx, dataloader_idx=0):
        self.reads.place(batch)


@pytest.mark.slow
def test_of_a_batchs_domain(tmp_path, monkeypatch):
    settings = ["model=net", "norm=domain", "task.class_weights=null"]
    own = FromOneDomain()
    counts = reads_of_an_epoch(tmp_path, monkeypatch, *settings, data=own, callbacks=lambda reads: [OnDevice(reads)])
    assert counts.pop("aten.bincount") <= OF_TORCHMETRICS
    assert not counts


def test_the_counter_sees_what_is_read_at_once(tmp_path, monkeypatch):
    """The CPU's own way, which a GPU would wait for in each batch."""
    counts = reads_of_an_epoch(tmp_path, monkeypatch, "model=my_model", lag=0)
    assert counts["aten._local_scalar_dense"] == 4  # batches
