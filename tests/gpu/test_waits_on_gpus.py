"""A GPU never waits for the processor to look at a batch, and leaves bad batches out by itself."""

import math
from functools import partial

import pytest
import torch
from helpers.folders import result_of, state
from lightning import Callback

from normlab import compose, run
from normlab.data.fake import Fake
from normlab.data.wine import Wine
from normlab.distributed import collectives
from normlab.tasks.gate import make_gate

pytestmark = pytest.mark.gpu

SETTINGS = ["logger=none", "trainer=gpu", "trainer.max_epochs=3", "test=false"]


class NoWaits(Callback):
    """Makes torch raise at whatever waits for the device, between the first and the last batch of the second epoch."""

    def __init__(self):
        hook = "on_train_batch_end"  # a method of this name is refused with steps_per_execution
        setattr(self, hook, self._ended)
        self.batches = 0

    def _ended(self, trainer, task, *_):
        if trainer.current_epoch == 1:
            self.batches += 1
            last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            torch.cuda.set_sync_debug_mode("default" if last else "error")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer=adamw", "trainer.precision=bf16-mixed"],
        ["optimizer=adamw", "trainer.precision=16-mixed", "trainer.gradient_clip_val=1"],
        ["steps_per_execution=2"],
        ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1"],
        ["callbacks=agc", "norm=nf"],
        ["nonfinite=skip"],
    ],
    ids=str,
)
def test_no_hidden_waits_in_an_epoch(tmp_path, overrides):
    data, watch = Fake(size=8, channels=3, samples=300, batch_size=16, crop=1, flip=True, on_device=True), NoWaits()
    try:
        run(compose([*SETTINGS, "model=my_model", *overrides]), tmp_path, data, [watch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.batches > 3


class Spoiled(Wine):
    """One training sample holds NaN."""

    def setup(self, stage=None):
        super().setup(stage)
        self.splits["train"][0][3, 2] = math.nan


class Held(Callback):
    """Keeps what the training had before each batch, and the network."""

    def __init__(self):
        self.before = {}

    def on_train_batch_start(self, trainer, task, *_):
        self.network = task.network
        self.before[trainer.global_step] = {key: value.clone() for key, value in task.network.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_raise_names_the_batch_and_nothing_has_changed_since(tmp_path, optimizer):
    held = Held()
    config = compose([*SETTINGS, "model=net", f"optimizer={optimizer}"])
    with pytest.raises(FloatingPointError, match="samples hold NaN or inf in x; clean the data") as caught:
        run(config, tmp_path, Spoiled(batch_size=16), [held])
    step = int(str(caught.value).split("step ")[1].split(":")[0])
    for key, value in held.network.state_dict().items():
        assert torch.equal(value, held.before[step][key]), key


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adamw optimizer.fused=false"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_skip_leaves_it_out(tmp_path, optimizer, precision):
    settings = [*SETTINGS, "model=net", "nonfinite=skip", f"trainer.precision={precision}"]
    run(compose([*settings, *f"optimizer={optimizer}".split()]), tmp_path, Spoiled(batch_size=16))
    assert result_of(tmp_path)["skipped"] == 3
    saved = state(tmp_path)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    moments = [value for each in saved["optimizer_states"][0]["state"].values() for value in each.values()]
    assert all(torch.isfinite(value).all() for value in moments if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam, torch.optim.AdamW])
def test_an_optimizer_that_has_stepped_unfused_goes_on_fused(make):
    gated, plain = (torch.ones(3, device="cuda", requires_grad=True) for _ in range(2))
    ours, theirs = (make([parameter], lr=0.1) for parameter in (gated, plain))
    for step, gradient in enumerate((0.5, -2.0, 3.0)):
        gate = make_gate([ours], gated.device) if step else None
        for parameter, optimizer in ((gated, ours), (plain, theirs)):
            parameter.grad = torch.full_like(parameter, gradient)
            if gate is not None and optimizer is ours:
                gate.before_step()
            optimizer.step()
        torch.testing.assert_close(gated, plain)


def test_flags_that_go_through_nccl(tmp_path, monkeypatch):
    """A process that takes itself for several trains as one that stands alone, and leaves out the same batch."""
    config = compose([*SETTINGS, "model=net", "norm=layer", "nonfinite=skip", "trainer.deterministic=true"])
    run(config, tmp_path / "alone", Spoiled(batch_size=16))
    torch.distributed.init_process_group("nccl", f"file://{tmp_path}/meet", rank=0, world_size=1)
    monkeypatch.setattr(collectives, "several", lambda: True)
    try:
        run(config, tmp_path / "several", Spoiled(batch_size=16))
    finally:
        torch.distributed.destroy_process_group()
        torch.use_deterministic_algorithms(False)
    ours, theirs = (state(tmp_path / name) for name in ("several", "alone"))
    assert ours["skipped"] == theirs["skipped"] == 3
    for key, value in ours["state_dict"].items():
        assert torch.equal(value, theirs["state_dict"][key]), key
