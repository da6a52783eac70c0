"""Several processes on GPUs: NCCL's collectives return at once, its watchdog ends a process that waits in vain."""

import signal
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

from normlab import compose, run
from normlab.errors import LostError, WaitError

SETTINGS = ["model=net", "data=wine", "logger=none", "trainer=ddp", "trainer.devices=2", "data.batch_size=4"]
PATIENCE = 15  # seconds


class Late(Callback):
    """Keeps the second process from the others for longer than they wait, once; by being stopped, or by sleeping."""

    def __init__(self, kind: str, mark: str):
        self.kind, self.mark = kind, Path(mark)

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_rank != 1 or trainer.current_epoch != 1 or self.mark.exists():
            return
        self.mark.touch()
        if self.kind == "sleep":
            time.sleep(PATIENCE + 120)
        elif self.kind == "assertion":
            torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")].sum().item()
        else:
            signal.raise_signal(signal.SIGSTOP if self.kind == "stop" else signal.SIGKILL)


def late(folder, kind, *typed):
    config = compose([*SETTINGS, "trainer.max_epochs=3", f"trainer.timeout={PATIENCE}", *typed])
    config.callbacks = {"late": {"_target_": "test_processes.Late", "kind": kind, "mark": f"{folder}.mark"}}
    return run(config, folder=folder)


@pytest.mark.gpu(devices=2)
def test_who_did_not_come_is_told_and_nobody_is_started_again(tmp_path):
    with pytest.raises(WaitError, match=r"rank 1 was last in test_processes.Late.*, epoch 1, step") as caught:
        late(tmp_path / "run", "sleep")
    assert caught.type is WaitError
    assert "restart" not in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.gpu(devices=2)
@pytest.mark.parametrize("kind", ["stop", "kill"])
def test_a_process_that_is_gone_costs_nothing(kind, tmp_path):
    """Its peer waits in the device and hears no signal; it takes no half minute either."""
    typed = ["trainer.deterministic=true"]
    start = time.monotonic()
    late(tmp_path / "run", kind, *typed)
    assert kind == "stop" or time.monotonic() - start < 120
    assert (tmp_path / "run" / "train.log").read_text().count("; restart 1 of 3") == 1
    run(compose([*SETTINGS, "trainer.max_epochs=3", *typed]), folder=tmp_path / "whole")
    found, expected = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "whole")
    )
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.gpu(devices=2)
def test_a_process_that_is_gone_and_not_started_again_is_lost(tmp_path):
    with pytest.raises(LostError, match="rank 1 was stopped in test_processes.Late"):
        late(tmp_path / "run", "stop", "trainer.max_restarts=0")


@pytest.mark.gpu(devices=2)
def test_a_failed_assertion_on_a_device_is_the_runs_error(tmp_path):
    with pytest.raises(RuntimeError, match="device-side assert"):
        late(tmp_path / "run", "assertion")
    assert "restart" not in (tmp_path / "run" / "train.log").read_text()
