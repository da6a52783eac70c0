"""Batches that the device leaves out, unread: all ends as where the processor looks at each loss at once."""

import math

import pytest
import torch
from helpers.asking import Ask
from helpers.cases import rest_slow
from helpers.folders import assert_same_run, differences, state
from helpers.scaling import Scaled
from lightning import Callback
from torch.optim import SGD, Adam, AdamW, RMSprop

from normlab import compose, run
from normlab.data.wine import Wine
from normlab.tasks import looks
from normlab.tasks.gate import make_gate

SETTINGS = ["model=net", "logger=none", "trainer=cpu", "trainer.max_epochs=2", "test=false"]
OPTIMIZERS = {  # fused kernels in both ways, so that bits can be compared
    "sgd": ["optimizer=sgd"],
    "adamw": ["optimizer=adamw"],
    "without a flag": ["optimizer=adamw", "optimizer.fused=false"],
}


class Spoiled(Wine):
    """Six training batches of 20; one sample holds NaN."""

    def setup(self, stage=None):
        super().setup(stage)
        self.splits["train"][0][3, 2] = math.nan


class Held(Callback):
    """Keeps the run's parts within reach when it has ended by an error."""

    def on_fit_start(self, trainer, task):
        self.trainer, self.network = trainer, task.network


class Later(Callback):
    """Gives the CPU of each process the lag of a GPU."""

    def setup(self, trainer, task, stage):
        looks.LAGS["cpu"] = 3

    def on_train_epoch_start(self, trainer, task):
        assert task.guard.gate is not None


@pytest.fixture
def later(monkeypatch):
    return lambda: monkeypatch.setitem(looks.LAGS, "cpu", 3)


def ended(folder, overrides):
    """The error of a run, and what it had trained by then."""
    held = Held()
    with pytest.raises(FloatingPointError) as caught:
        run(compose([*SETTINGS, *overrides]), folder, Spoiled(batch_size=20), [held])
    optimizer = held.trainer.optimizers[0]
    return str(caught.value), held.network.state_dict(), optimizer.state_dict()["state"]


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    rest_slow([(each, steps) for each in OPTIMIZERS for steps in (1, 4)], lambda case: case[0] == "sgd"),
)
def test_raise_ends_with_the_same_words_and_nothing_has_changed_since(tmp_path, later, optimizer, steps):
    overrides = [*OPTIMIZERS[optimizer], f"steps_per_execution={steps}"]
    at_once = ended(tmp_path / "at once", overrides)
    later()
    seen_later = ended(tmp_path / "later", overrides)
    assert "1 of the batch's 20 samples hold NaN or inf in x" in at_once[0]
    assert differences(seen_later, at_once) == []
    assert not (tmp_path / "later" / "checkpoints" / "last.ckpt").exists()


WAYS = {
    "plain": [],
    "many steps": ["steps_per_execution=4"],
    "accumulated": ["trainer.accumulate_grad_batches=2"],
    "half": ["trainer.precision=bf16-mixed", "norm=renorm"],
    "scaled": ["trainer.gradient_clip_val=1"],
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # the first batch may be it
@pytest.mark.parametrize(
    ("optimizer", "way"),
    rest_slow([(each, way) for each in OPTIMIZERS for way in WAYS], lambda case: case == ("sgd", "accumulated")),
)
def test_skip_trains_as_if_each_loss_had_been_looked_at(tmp_path, later, optimizer, way):
    config = compose([*SETTINGS, *OPTIMIZERS[optimizer], *WAYS[way], "nonfinite=skip"])
    scaled = [Scaled()] if way == "scaled" else []
    run(config, tmp_path / "at once", Spoiled(batch_size=20), scaled)
    later()
    run(config, tmp_path / "later", Spoiled(batch_size=20), scaled)
    assert state(tmp_path / "later")["skipped"] == 2
    assert_same_run(tmp_path / "later", tmp_path / "at once")
    first, second = ((tmp_path / name / "train.log").read_text() for name in ("at once", "later"))
    told = [line for line in first.splitlines() if "batches were skipped" in line]
    assert len(told) == 2
    assert all(line.split("WARNING")[1] in second for line in told)


@pytest.mark.parametrize("policy", [pytest.param("raise", marks=pytest.mark.slow), "skip"])
def test_a_run_that_is_interrupted_goes_on_bit_for_bit(tmp_path, later, policy):
    later()
    config = compose([*SETTINGS, "optimizer=adamw", f"nonfinite={policy}"])
    data = Spoiled if policy == "skip" else Wine
    run(config, tmp_path / "whole", data(batch_size=20))
    ask = Ask("on_train_batch_start", 4, str(tmp_path / "mark"))
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", data(batch_size=20), [ask])
    run(config, tmp_path / "run", data(batch_size=20))
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_no_checkpoint_is_of_a_run_that_a_batch_has_ended(tmp_path, later):
    """It is saved every step; the batch's flag has not been looked at when the next step is."""
    later()
    with pytest.raises(FloatingPointError, match="samples hold NaN or inf in x"):
        run(compose([*SETTINGS, "optimizer=adamw", "save_every=1steps"]), tmp_path, Spoiled(batch_size=20))
    saved = state(tmp_path, "within_epoch")
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    run(compose([*SETTINGS, "optimizer=adamw", "nonfinite=skip"]), tmp_path, Spoiled(batch_size=20))
    run(compose([*SETTINGS, "optimizer=adamw", "nonfinite=skip"]), tmp_path / "whole", Spoiled(batch_size=20))
    assert_same_run(tmp_path, tmp_path / "whole")


class Saves(Callback):
    """Saves every batch, as a person's own ModelCheckpoint may."""

    def __init__(self, file):
        self.file = file

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(self.file)


def test_whoever_saves_a_checkpoint_hears_of_the_batch_first(tmp_path, later):
    later()
    config = compose([*SETTINGS, "optimizer=adamw"])
    with pytest.raises(FloatingPointError) as caught:
        run(config, tmp_path / "run", Spoiled(batch_size=20), [Saves(tmp_path / "own.ckpt")])
    saved = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert f"step {saved['global_step']}:" in str(caught.value)


@pytest.fixture
def unwritten_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unwritten_memory_is_nan")
@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_closed_gate_keeps_weights_and_moments(make, momentum):
    """Also in the first step, where SGD's own would be left unwritten; torch's unfused optimizer is the reference."""
    keys = {
        "lr": 0.1,
        **({"momentum": momentum, "nesterov": momentum > 0} if make is SGD else {"betas": (momentum, 0.9)}),
    }
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    gated, plain = make([ours], **keys), make([theirs], foreach=False, **keys)
    gate = make_gate([gated], ours.device)
    assert gate is not None
    for gradient in (math.nan, 0.5, math.inf, -2.0, 3.0):
        ours.grad = torch.full((3,), gradient)
        gate.leave_out(torch.tensor(not math.isfinite(gradient)))
        gate.leave_out(torch.tensor(False))  # another batch of the same step
        gate.before_step()
        gated.step()
        if math.isfinite(gradient):
            theirs.grad = torch.full((3,), gradient)
            plain.step()
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: RMSprop(p),
        lambda p: SGD(p, foreach=True),
        lambda p: SGD(p, momentum=0.9, dampening=0.1),
        lambda p: AdamW(p, fused=False),
    ],
)
def test_an_optimizer_without_a_flag_has_no_gate(make):
    parameter = torch.ones(3, requires_grad=True)
    optimizer = make([parameter])
    assert make_gate([optimizer], parameter.device) is None
    assert not optimizer.param_groups[0].get("fused")


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["true", "false"])
def test_several_processes_leave_out_together(tmp_path, sync):
    """One of them has the sample, on which the statistics of both depend where they are joint."""
    settings = [*SETTINGS, "trainer=ddp_cpu", "optimizer=adamw", "data=wine", f"trainer.sync_batchnorm={sync}"]
    for name in ("at once", "later"):
        config = compose([*settings, "nonfinite=skip"])
        config.data._target_ = "test_left_out.Spoiled"
        if name == "later":
            config.callbacks = {"later": {"_target_": "test_left_out.Later"}}
        run(config, tmp_path / name)
    later, at_once = (state(tmp_path / name) for name in ("later", "at once"))
    assert later["skipped"] == at_once["skipped"] == 2
    for key in ("state_dict", "optimizer_states", "global_step"):
        assert differences(later[key], at_once[key]) == []
    first, second = ((tmp_path / name / "metrics.csv").read_text() for name in ("later", "at once"))
    assert first == second


@pytest.mark.slow
def test_a_processs_batch_ends_the_others_too(tmp_path):
    config = compose([*SETTINGS, "trainer=ddp_cpu", "optimizer=adamw", "data=wine"])
    config.data._target_ = "test_left_out.Spoiled"
    config.callbacks = {"later": {"_target_": "test_left_out.Later"}}
    with pytest.raises(
        FloatingPointError, match=r"epoch 0, step \d: 1 of .* NaN or inf in x; clean the data"
    ) as caught:
        run(config, tmp_path)
    assert "in process" in caught.value.__notes__[0]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
