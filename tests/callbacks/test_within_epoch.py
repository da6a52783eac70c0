"""A run that a signal asks to end goes on at the next batch, and ends as the one that was never interrupted."""

import itertools
import random
import signal
from contextlib import suppress

import numpy as np
import pytest
import torch
from helpers.asking import HOOKS, Ask, assert_goes_on
from helpers.cases import rest_slow
from helpers.folders import assert_same_run, result_of
from helpers.samples import image_folder
from lightning import Callback, LightningDataModule
from torch.utils.data import DataLoader, Dataset

from normlab import compose, run
from normlab.callbacks import within_epoch
from normlab.config.interval import parse_interval
from normlab.errors import ConfigError

WINE = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3", "data.batch_size=20"]  # 6 batches an epoch


CASES = {
    "plain": [],
    "chunks": ["steps_per_execution=4"],
    "accumulated": ["trainer.accumulate_grad_batches=4"],
    "validations within": ["+trainer.val_check_interval=3"],
    "a validation in two": ["trainer.check_val_every_n_epoch=2"],
    "sums kept by metrics": ["task.metrics=[acc,auroc,confusion_matrix]", "norm=renorm"],
}


SHORT = {("plain", "on_train_batch_start"), ("plain", "on_validation_batch_start"), ("plain", "on_train_epoch_end")}
SHORT |= {("chunks", "on_train_batch_end")}


@pytest.mark.parametrize(("case", "hook"), rest_slow(itertools.product(CASES, HOOKS), SHORT.__contains__))
def test_asked_at_any_moment(tmp_path, case, hook):
    calls = {"on_train_batch_start": 8, "on_train_batch_end": 12, "on_validation_batch_start": 3}
    if case == "chunks":
        calls |= {"on_train_batch_start": 3, "on_train_batch_end": 4}
    if case == "a validation in two":
        calls |= {"on_validation_batch_start": 1, "on_validation_start": 1, "on_validation_end": 1}
    assert_goes_on(tmp_path, [*WINE, *CASES[case]], (hook, calls.get(hook, 2)))


class Random(Dataset):
    """A person's own data set, whose samples draw from every global generator."""

    def __len__(self):
        return 60

    def __getitem__(self, place):
        noise = torch.randn(4) * 0.1 + np.random.normal() * 0.1 + random.random() * 0.1
        label = place % 3
        return torch.eye(3, 4)[label] + noise, label


class OwnData(LightningDataModule):
    """A person's own data module, with loaders of torch that shuffle."""

    def __init__(self, workers):
        super().__init__()
        self.workers = workers

    def train_dataloader(self):
        return DataLoader(Random(), batch_size=10, shuffle=True, num_workers=self.workers)

    def val_dataloader(self):
        return DataLoader(Random(), batch_size=20)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("hook", "count"),
    [("on_train_batch_start", 8), pytest.param("on_validation_batch_start", 5, marks=pytest.mark.slow)],
)
def test_own_data_goes_on_at_the_next_batch(tmp_path, workers, hook, count):
    overrides = ["model=net", "logger=none", "trainer.max_epochs=3"]
    run(compose(overrides), folder=tmp_path / "whole", data=OwnData(workers))
    ask = Ask(hook, count, str(tmp_path / "mark"))
    with pytest.raises(KeyboardInterrupt):
        run(compose(overrides), folder=tmp_path / "run", data=OwnData(workers), callbacks=[ask])
    run(compose(overrides), folder=tmp_path / "run", data=OwnData(workers))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


class Spoil(Callback):
    """Spoils the second batch of each epoch, and counts batches in a state of its own."""

    def __init__(self):
        self.batches = 0

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state_dict):
        self.batches = state_dict["batches"]

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.batches += 1
        if batch_idx == 1:
            batch[0].fill_(float("nan"))


def test_skipped_batches_and_the_state_of_own_callbacks_go_on(tmp_path):
    overrides = [*WINE, "nonfinite=skip", "trust=[test_within_epoch]"]
    counted = []
    for name, asks in (("whole", []), ("run", [Ask("on_train_batch_start", 9, str(tmp_path / "mark"))]), ("run", [])):
        spoil = Spoil()
        with suppress(KeyboardInterrupt):
            run(compose(overrides), folder=tmp_path / name, callbacks=[spoil, *asks])
        counted.append(spoil.batches)
    assert counted[0] == counted[2] == 18
    assert result_of(tmp_path / "run")["skipped"] == 3
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("ddp_cpu", marks=pytest.mark.slow),
        pytest.param("ddp_cpu trainer.sync_batchnorm=false", marks=pytest.mark.endurance),
        pytest.param("fsdp trainer.devices=2", marks=pytest.mark.endurance),
    ],
)
def test_several_processes_go_on_together(tmp_path, case):
    overrides = [*WINE, *f"trainer={case}".split(), "trainer.accelerator=cpu"]
    assert_goes_on(tmp_path, overrides, ("on_train_batch_start", 5), ("on_validation_batch_start", 1), rank=1)


@pytest.mark.slow
def test_images_that_other_processes_decode_go_on(tmp_path):
    images = image_folder(tmp_path / "images")
    overrides = ["model=mynet", f"data.path={images}", "data=image_folder", "data.size=16", "data.workers=2"]
    overrides += ["data.in_memory=false", "data.batch_size=4", "trainer.max_epochs=2", "logger=none"]
    assert_goes_on(tmp_path, overrides, ("on_train_batch_start", 3), ("on_validation_batch_start", 1))


def test_saved_every_so_many_steps(tmp_path):
    """Killed without a word, a run loses the steps since it was saved."""
    overrides = [*WINE, "save_every=4steps"]
    run(compose(overrides), folder=tmp_path / "whole")
    with pytest.raises(RuntimeError, match="lost"):
        run(compose(overrides), folder=tmp_path / "run", callbacks=[Lose(epoch=1, batch=5)])
    within = torch.load(tmp_path / "run" / "checkpoints" / "within_epoch.ckpt", weights_only=True)
    assert (within["epoch"], within["within_epoch"]["batches"], within["global_step"]) == (1, 4, 10)
    run(compose(overrides), folder=tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_saved_after_so_much_time(tmp_path, monkeypatch):
    """A clock stands in for the machine's; each batch takes four minutes."""
    clock = itertools.count(0, 60)
    monkeypatch.setattr(within_epoch.time, "monotonic", lambda: next(clock))
    with pytest.raises(RuntimeError, match="lost"):
        run(compose(WINE), folder=tmp_path, callbacks=[Lose(epoch=0, batch=5)])
    within = torch.load(tmp_path / "checkpoints" / "within_epoch.ckpt", weights_only=True)
    assert within["within_epoch"]["batches"] in (3, 4, 5)


class Lose(Callback):
    """Ends a run as if it were killed."""

    def __init__(self, epoch, batch):
        self.place = epoch, batch

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            raise RuntimeError("lost")


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    first = Ask("on_train_batch_start", 8, str(tmp_path / "first"), number=signal.SIGINT)
    second = Ask("on_train_batch_end", 8, str(tmp_path / "second"), number=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(compose(WINE), folder=tmp_path / "run", callbacks=[first, second])
    assert not (tmp_path / "run" / "checkpoints" / "within_epoch.ckpt").exists()


@pytest.mark.parametrize("value", ["0", "500", "10", "0min", "5weeks", "-3s", "steps", "true", "[10min]"])
def test_an_interval_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match=r"save_every=.*: expected a time such as 90s, 10min or 2h, or steps such as"):
        compose([f"save_every={value}"])


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("90s", (90, None)),
        ("10min", (600, None)),
        ("2h", (7200, None)),
        ("500steps", (None, 500)),
        ("1step", (None, 1)),
    ],
)
def test_intervals_mean_what_they_say(text, interval):
    parsed = parse_interval(text)
    assert (parsed.seconds, parsed.steps) == interval
