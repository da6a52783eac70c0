"""Nothing may hang: processes that wait in vain, that were stopped, or whose launcher was killed; and twenty kills."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers.cases import ROOT
from helpers.folders import files, result_of, weights
from helpers.harm import TWO
from helpers.processes import train, wait_for_rows
from lightning import Callback

from normlab import compose, run
from normlab.data.wine import Wine
from normlab.errors import ConfigError, WaitError

PATIENT = [*TWO, "trainer.timeout=30"]


class Mischief(Callback):
    """Does something to one process, once."""

    def __init__(self, kind: str, mark: str):
        self.kind, self.mark = kind, Path(mark)

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.current_epoch != 1 or batch_idx != 5 or self.mark.exists() or trainer.global_rank != 1:
            return
        if self.kind == "forward":
            task.network(batch[0])
        elif self.kind == "abort":
            time.sleep(2)  # for a sign that tells where
            os.abort()
        elif self.kind == "stop":
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    def teardown(self, trainer, task, stage):
        if self.kind == "stop at the end" and stage == "test" and trainer.global_rank == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)


class Uneven(Wine):
    """Has a batch less in the second process."""

    def train_dataloader(self):
        loader = super().train_dataloader()
        if self.rank == 1:
            loader.drop_last = True
        return loader


def with_mischief(folder, kind, *overrides):
    config = compose([*PATIENT, *overrides])
    config.callbacks = {"mischief": {"_target_": "test_hangs.Mischief", "kind": kind, "mark": f"{folder}.mark"}}
    return run(config, folder=folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run(compose(TWO), folder=folder)
    return folder


def assert_same(folder, whole) -> None:
    """Weights bit by bit, epochs, score and metrics, and no file more or less."""
    found, expected = weights(folder), weights(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    told, wanted = result_of(folder), result_of(whole)
    for key in ("status", "score", "metrics", "best", "epochs", "steps", "skipped"):
        assert told[key] == wanted[key], key
    assert files(folder) == files(whole)


@pytest.mark.slow
def test_a_forward_pass_in_one_process_alone_ends_the_run_with_its_place(tmp_path):
    with pytest.raises(WaitError) as caught:
        with_mischief(tmp_path / "run", "forward")
    message = str(caught.value)
    assert "waited in vain" in message
    assert "rank 0" in message
    assert "rank 1" in message
    assert message.count("epoch 1, step 20") == 2
    assert re.search(r"Timed out waiting 30000ms|by peer|pair closure", message)  # the first to give up closes
    told = result_of(tmp_path / "run")
    assert (told["status"], told["epochs"]) == ("failed", 1)
    assert message.splitlines()[0] in told["error"]
    assert "restart" not in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
def test_loaders_of_different_lengths_are_refused(tmp_path):
    config = compose(PATIENT)
    config.data._target_ = "test_hangs.Uneven"
    with pytest.raises(
        ConfigError, match=r"^process 1 has 14 training and \d validation .* process 0 15 training and \d val"
    ):
        run(config, folder=tmp_path)
    assert result_of(tmp_path)["status"] == "refused"


@pytest.mark.slow
def test_a_stopped_process_counts_as_killed(tmp_path, whole):
    with_mischief(tmp_path / "run", "stop")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "rank 0 of 2 waited in vain for the others' statistics in " in log
    assert "; rank 1 gives no answer. If it only takes longer, raise trainer.timeout; restart 1 of 3" in log
    assert_same(tmp_path / "run", whole)


@pytest.mark.endurance
def test_a_process_that_stops_after_the_last_wait_is_not_waited_for(tmp_path, whole):
    with_mischief(tmp_path / "run", "stop at the end")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "process 1 of 2, counted from 0, was ended by SIGKILL; restart 1 of 3" in log
    assert_same(tmp_path / "run", whole)


class StoppedInData(Wine):
    """Stops the second process before it has met the first, once."""

    def setup(self, stage=None):
        mark = Path(os.environ["NORMLAB_MARK"])
        if self.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        super().setup(stage)


@pytest.mark.endurance
def test_a_process_that_is_stopped_before_all_have_met_counts_as_killed(tmp_path, whole, monkeypatch):
    monkeypatch.setenv("NORMLAB_MARK", str(tmp_path / "mark"))
    config = compose([*TWO, "trainer.timeout=20"])
    config.data._target_ = "test_hangs.StoppedInData"
    run(config, folder=tmp_path / "run")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "the processes have not met; rank 1 gives no sign of life; restart 1 of 3" in log
    found, expected = weights(tmp_path / "run"), weights(whole)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.slow
def test_a_process_that_ends_itself_by_sigabrt_is_not_started_again(tmp_path):
    """Does what NCCL's watchdog does."""
    with pytest.raises(
        WaitError, match=r"process 1 of 2, counted from 0, was ended by SIGABRT, .*; rank 1 was last in .*epoch 1, step"
    ):
        with_mischief(tmp_path / "run", "abort")
    assert result_of(tmp_path / "run")["status"] == "failed"
    assert "restart" not in (tmp_path / "run" / "train.log").read_text()


def ranks_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes that their parent died")
@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=pytest.mark.endurance)])
def test_processes_die_with_their_launcher_and_the_same_command_resumes(tmp_path, stopped):
    command = [*TWO, "trainer.max_epochs=40", "name=a"]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path, stdout=subprocess.PIPE)
    folder = tmp_path / "outputs" / "a"
    wait_for_rows(folder / "metrics.csv", 3)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    if stopped:
        for rank in ranks:
            os.kill(rank, signal.SIGSTOP)
    process.kill()
    process.communicate(timeout=60)
    for _ in range(100):
        if not any(map(is_alive, ranks)):
            break
        time.sleep(0.1)
    assert not any(map(is_alive, ranks))
    written = (folder / "metrics.csv").read_text()
    assert 3 < len(written.splitlines()) < 41
    assert "resuming from" in train(*command, cwd=tmp_path).stdout
    assert (folder / "metrics.csv").read_text().startswith(written)
    assert result_of(folder)["epochs"] == 40


class Killer:
    """Kills a process of a run at a random moment, again and again, up to `most` times.

    A quarter of the moments lie in the start of the processes, the others in any of the epochs to come.
    """

    epochs = 100

    def __init__(self, draw: random.Random, folder: Path, most: int):
        self.draw, self.table, self.most = draw, folder / "metrics.csv", most
        self.kills: list[tuple[int, int]] = []  # rank, finished epochs
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._go)

    def __enter__(self) -> "Killer":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()

    def _rows(self) -> int:
        return max(0, len(self.table.read_text().splitlines()) - 1) if self.table.is_file() else 0

    def _go(self) -> None:
        known: set[int] = set()
        while len(self.kills) < self.most and not self.over.wait(0.01):
            started = sorted(multiprocessing.active_children(), key=lambda child: child.pid)
            if len(started) < 2 or {child.pid for child in started} & known:
                continue
            rank, wanted, moment = self.draw.randrange(2), 0, self.draw.uniform(0, 5)
            if self.draw.random() < 0.75:
                wanted = self.draw.randint(min(self._rows() + 1, self.epochs), self.epochs)
                moment = self.draw.uniform(0, 0.1)
            while self._rows() < wanted and not self.over.wait(0.01):
                pass
            if not self.over.wait(moment) and started[rank].is_alive():
                os.kill(started[rank].pid, signal.SIGKILL)
                self.kills.append((rank, self._rows()))
            known = {child.pid for child in started}


@pytest.mark.endurance
def test_twenty_killed_processes_cost_nothing(tmp_path):
    """At random moments from their start to their end, also where a checkpoint is being written."""
    seed = int(os.environ.get("NORMLAB_KILLS", time.time_ns() % 10**6))
    print(f"NORMLAB_KILLS={seed}")
    settings = [*TWO, f"trainer.max_epochs={Killer.epochs}", "trainer.max_restarts=20"]
    run(compose(settings), folder=tmp_path / "whole")
    draw, kills, runs = random.Random(seed), 0, 0
    while kills < 20:
        folder = tmp_path / str(runs)
        with Killer(draw, folder, most=min(5, 20 - kills)) as killer:
            run(compose(settings), folder=folder)
        print(f"run {runs}, ranks killed after epochs: {killer.kills}")
        assert_same(folder, tmp_path / "whole")
        kills += (folder / "train.log").read_text().count("; restart ")
        runs += 1
        assert runs < 40
