"""Several processes on one machine: the network of one process, runs that survive a killed process, refusals."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.cases import ROOT
from helpers.folders import files, result_of, weights
from helpers.harm import SMALL, TWO, harmed
from helpers.processes import train, wait_for_rows
from lightning import Callback
from torch.utils.data import TensorDataset

from normlab import compose, run
from normlab.callbacks.same_config import SameConfig
from normlab.data.wine import Wine
from normlab.distributed import devices
from normlab.errors import ConfigError

ONE = [*SMALL, "trainer=cpu", "data.batch_size=8"]


class Dump(Callback):
    """Keeps each process's running statistics before and after they are merged."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer, task, *_):
        self.keep(trainer, task, "before")

    def on_train_epoch_end(self, trainer, task):
        self.keep(trainer, task, "after")

    def keep(self, trainer, task, when):
        torch.save(dict(task.network.named_buffers()), self.folder / f"{when}{trainer.global_rank}.pt")


class Spoiled(Wine):
    """Has NaN in one training sample."""

    def setup(self, stage=None):
        super().setup(stage)
        self.splits["train"][0][7] = math.nan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(compose(TWO), folder=folder)


def test_two_processes_train_the_network_of_one(whole, tmp_path):
    folder, two = whole
    one = run(compose(ONE), folder=tmp_path)
    found, expected = weights(folder), weights(tmp_path)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10, msg=key)
    assert two.metrics.keys() == one.metrics.keys()
    for name, value in one.metrics.items():
        assert two.metrics[name] == pytest.approx(value, rel=1e-6, abs=0), name  # torchmetrics keeps float32
    assert (two.score, two.metrics["test/acc"]) == (one.score, one.metrics["test/acc"])
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[key]) for key, value in two.task.state_dict().items())

    assert files(folder) == files(tmp_path)
    rows, wanted = (
        list(csv.DictReader((path / "metrics.csv").read_text().splitlines())) for path in (folder, tmp_path)
    )
    assert [(row["epoch"], row["step"]) for row in rows] == [(row["epoch"], row["step"]) for row in wanted]
    assert (folder / "train.log").read_text().count("`Trainer.fit` stopped: `max_epochs=3` reached.") == 1
    told, expected = result_of(folder), result_of(tmp_path)
    assert (told["world_size"], expected["world_size"]) == (2, 1)
    for key in ("status", "score", "best", "epochs", "steps", "skipped", "parameters"):
        assert told[key] == expected[key], key


def test_signal_handlers_are_put_back(whole):
    """torch's launcher would leave its own, and Ctrl-C would no longer end a sweep."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_a_killed_process_costs_nothing(whole, tmp_path):
    harmed(tmp_path / "run", TWO, "kill")
    found, expected = weights(tmp_path / "run"), weights(whole[0])
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert (tmp_path / "run" / "metrics.csv").read_text() == (whole[0] / "metrics.csv").read_text()
    ended = "process 1 of 2, counted from 0, was ended by SIGKILL; restart 1 of 3"
    assert ended in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_without_restarts_a_killed_process_is_recorded(tmp_path, rank):
    with pytest.raises(ChildProcessError, match=f"process {rank} of 2, counted from 0, was ended by SIGKILL"):
        harmed(tmp_path / "run", [*TWO, "trainer.max_restarts=0"], "kill", rank)
    told = result_of(tmp_path / "run")
    assert told["status"] == "failed"
    assert "SIGKILL" in told["error"]
    assert (told["epochs"], told["skipped"]) == (1, 0)
    assert told["steps"] == 15 or (rank, told["steps"]) == (1, 20)  # the first process may tell more than was saved
    assert told["best"] == {"epoch": 0, "path": "checkpoints/best.ckpt"}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "layer"])  # the one carries NaN to the other process
def test_a_processs_error_is_the_runs(tmp_path, norm):
    """It comes from the process that has the cause, and once: an error is no reason to start again."""
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 20: 4 of .* NaN or inf in x; clean the data. nonfinite=skip leaves"
    ) as caught:
        harmed(tmp_path / "run", [*TWO, f"norm={norm}"], "nan")
    assert "in process 1:" in caught.value.__notes__[0]
    told = result_of(tmp_path / "run")
    assert (told["status"], told["epochs"], told["steps"]) == ("failed", 1, 20)
    assert "restart" not in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["norm=batch"], ["norm=layer", "trainer.accumulate_grad_batches=2"]])
def test_batches_are_left_out_as_by_one_process(tmp_path, settings):
    """Each rank's batch with that of the others, also where its own loss is finite."""
    for folder, overrides in (("one", ONE), ("two", TWO)):
        config = compose([*overrides, *settings, "nonfinite=skip"])
        config.data._target_ = "test_distributed.Spoiled"
        run(config, folder=tmp_path / folder)
    found, expected = weights(tmp_path / "two"), weights(tmp_path / "one")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10, msg=key)
    two, one = (result_of(tmp_path / folder) for folder in ("two", "one"))
    for key in ("skipped", "score", "steps", "epochs"):
        assert two[key] == one[key], key
    assert two["skipped"] == 3
    log = (tmp_path / "two" / "train.log").read_text()
    assert log.count("1 of 15 batches were skipped; the first: train/loss is nan in epoch") == 3
    assert len(re.findall(r"skipped; .*: 1 of the batch's [1-4] samples hold NaN or inf in x", log)) == 3


@pytest.mark.slow
def test_statistics_that_are_not_synchronised_are_merged(tmp_path):
    config = compose([*TWO, "trainer.sync_batchnorm=false", "data.drop_last=true", "trainer.max_epochs=1"])
    config.callbacks = {"dump": {"_target_": "test_distributed.Dump", "folder": str(tmp_path)}}
    run(config, folder=tmp_path / "run")
    before, after = ([torch.load(tmp_path / f"{when}{rank}.pt") for rank in (0, 1)] for when in ("before", "after"))
    saved = {key.removeprefix("network."): value for key, value in weights(tmp_path / "run").items()}
    for name in after[0]:
        if not name.endswith("running_mean"):
            continue
        deviations = name.replace("running_mean", "running_var")
        means, variances = ([rank[key] for rank in before] for key in (name, deviations))
        assert not torch.allclose(means[0], means[1])
        expected = sum(means) / 2
        spread = sum(v + (m - expected) ** 2 for m, v in zip(means, variances, strict=True)) / 2
        for merged in (*after, saved):
            torch.testing.assert_close(merged[name], expected, rtol=1e-10, atol=0)
            torch.testing.assert_close(merged[deviations], spread, rtol=1e-10, atol=0)
    assert any(name.endswith("running_var") for name in saved)


@pytest.mark.slow
def test_a_sweep_on_two_processes(tmp_path):
    """With batches of which the last leaves a process nothing to validate: 27 samples are 13 + 13 and 1 + 0."""
    rates = (0.01, 0.1)
    train("-m", *TWO, "data.batch_size=13", "optimizer.lr=0.01,0.1", "trainer.max_epochs=1", "name=s", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    for job, rate in enumerate(rates):
        single = [*ONE, "data.batch_size=26", f"optimizer.lr={rate}", "trainer.max_epochs=1"]
        alone = run(compose(single), folder=tmp_path / str(job))
        found = weights(sweep / str(job))
        assert all(torch.allclose(found[key], v, rtol=0, atol=1e-10) for key, v in weights(tmp_path / str(job)).items())
        told = result_of(sweep / str(job))
        assert (told["score"], told["metrics"]["test/acc"]) == (alone.score, alone.metrics["test/acc"])
        assert files(sweep / str(job)) == files(tmp_path / str(job))


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    ["Ctrl-C", *(pytest.param(f"SIGTERM to {whom}", marks=pytest.mark.endurance) for whom in ("all", "the launcher"))],
)
def test_who_asks_a_run_to_end_ends_all_its_processes(asked, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TWO, "trainer.max_epochs=10000", "name=a"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, text=True, start_new_session=True, **pipes)
    wait_for_rows(tmp_path / "outputs" / "a" / "metrics.csv", 2)
    if asked == "SIGTERM to the launcher":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT if asked == "Ctrl-C" else signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert re.fullmatch(r"interrupted; saved (in|after) .*: the same command with name=a goes on\n", told)
    assert result_of(tmp_path / "outputs" / "a")["status"] == "interrupted"
    assert result_of(tmp_path / "outputs" / "a")["epochs"] >= 1
    for _ in range(100):  # the other process may leave a moment later
        if not (left := running(process.pid)):
            break
        time.sleep(0.1)
    assert not left


def running(session: int) -> list[str]:
    """The states of a session's processes that have not ended."""
    states = subprocess.run(["ps", "-o", "stat=", "--sid", str(session)], capture_output=True, text=True).stdout
    return [state for state in states.split() if not state.startswith("Z")]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["steps_per_execution=4"], "steps_per_execution=4 cannot be combined with trainer.devices=2; use 1"),
        (["action=lr_find", "name=a"], "action=lr_find cannot be combined with trainer.devices=2"),
        (["trainer.devices=0"], "trainer.devices=0: expected a whole number of at least 1 or auto"),
        (["trainer.timeout=0"], "trainer.timeout=0: expected a number above 0"),
        (["trainer.max_restarts=-1"], "trainer.max_restarts=-1: expected a whole number of at least 0"),
        (["+trainer.strategy=deepspeed"], "trainer.strategy=deepspeed: expected ddp or fsdp"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_without_torch(typed, message):
    with pytest.raises(ConfigError, match=message):
        compose([*TWO, *typed])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["norm=mabn"], r"norm=mabn \(bn1.*trainer.sync_batchnorm=false"),
        (
            ["trainer.devices=4", "data.batch_size=7"],
            "last training batch holds 3 samples for 4 processes: set data.dr",
        ),
        (
            ["trainer.sync_batchnorm=false"],
            "last training batch holds 1 sample in a process, and that leaves bn1 one value per channel: set data.drop",
        ),
        (["trainer.devices=auto"], "devices=auto counts GPUs: on the CPU say how many processes"),
    ],
)
def test_what_the_built_network_cannot_do_is_refused_before_the_launch(typed, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(compose([*TWO, *typed]), folder=tmp_path)
    assert result_of(tmp_path)["status"] == "refused"


def test_own_data_is_refused_on_several_processes(tmp_path):
    data = [TensorDataset(torch.randn(32, 5), torch.arange(32) % 2)] * 2
    with pytest.raises(ConfigError, match=r"own data is not cut into parts for 2 processes: use trainer.devices=1"):
        run(compose(TWO), folder=tmp_path, data=data)


def test_gpus_that_are_not_there_are_counted(monkeypatch):
    def count(gpus: int, *typed: str) -> int:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return devices.count(compose([*SMALL, "trainer=ddp", *typed]))

    assert (count(3), count(3, "trainer.devices=2"), count(0, "trainer.devices=1")) == (3, 2, 1)
    assert count(0, "trainer.accelerator=auto", "trainer.devices=2") == 2
    with pytest.raises(ConfigError, match=r"trainer.devices=4: asked for 4 GPUs, found 1"):
        count(1, "trainer.devices=4")
    with pytest.raises(ConfigError, match=r"trainer.devices=auto: there is no GPU; trainer.accelerator=cpu"):
        count(0)


def test_another_number_of_gpus_does_not_go_on(whole, tmp_path, monkeypatch):
    """`trainer.devices=auto` may find fewer on the next machine; another batch would train another network."""
    folder = tmp_path / "run"
    config = compose(TWO)
    run_of_two = result_of(whole[0]) | {"status": "failed"}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "config.yaml").write_text((whole[0] / "config.yaml").read_text())
    (folder / "result.json").write_text(json.dumps(run_of_two))
    monkeypatch.setattr(devices, "count", lambda config: 3)
    for _ in range(2):  # a refusal does not forget it
        with pytest.raises(ConfigError, match="this run was begun on 2 devices and would go on on 3"):
            run(config, folder=folder)


def test_processes_with_different_configurations_stop():
    class Trainer:
        global_rank = 1

        class strategy:  # noqa: N801
            broadcast = staticmethod(lambda own: "first")

    SameConfig("first").setup(Trainer, None, "fit")
    with pytest.raises(ConfigError, match="process 1 has the configuration other and process 0 first"):
        SameConfig("other").setup(Trainer, None, "fit")
