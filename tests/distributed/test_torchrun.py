"""Processes that torchrun started: one run of several, as `trainer=ddp_cpu` starts them itself."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from helpers.cases import ROOT, rest_slow
from helpers.folders import assert_same_weights
from helpers.processes import RANKS, train, wait_for_rows
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from normlab import compose, run
from normlab.distributed import devices, world
from normlab.distributed.rendezvous import check_gpus
from normlab.errors import ConfigError

WINE = ["model=net", "data=wine", "logger=none", "trainer.accelerator=cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(*overrides: str, cwd, flags=(), **settings) -> subprocess.Popen[str]:
    command = [*TORCHRUN, *flags, str(ROOT / "train.py"), *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=os.environ | settings, **pipes)


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == code, out + errors
    return out, errors


def child(parent: int, rank: int) -> int:
    """The process of a rank among a torchrun's."""
    with open(f"/proc/{parent}/task/{parent}/children") as listed:
        children = [int(number) for number in listed.read().split()]
    for number in children:
        with open(f"/proc/{number}/environ") as environ:
            if f"RANK={rank}" in environ.read().split("\0"):
                return number
    raise AssertionError(f"torchrun has no rank {rank} among {children}")


def as_rank(rank: int, *overrides: str, cwd, code: int = 2, **settings: str) -> subprocess.CompletedProcess[str]:
    """train.py with the environment that torchrun gives one of two processes; nobody else is there."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    environment = os.environ | RANKS | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | settings
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_processes_of_which_one_was_killed_make_one_folder_with_the_weights_of_ddp_cpu(tmp_path):
    settings = [*WINE, "trainer.max_epochs=15"]
    folder = tmp_path / "outputs" / "joined"
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command = [*settings, "trainer=torchrun", "name=joined"]
    running = torchrun(*command, cwd=tmp_path, flags=["--max-restarts", "1"], **environment)
    wait_for_rows(folder / "metrics.csv", 3)
    os.kill(child(running.pid, rank=1), signal.SIGKILL)
    out, _ = finish(running)
    assert out.count("resuming from outputs/joined/checkpoints/last.ckpt") == 1
    assert out.count("best val/acc") == 1

    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["joined"]
    made = {path.name for path in folder.iterdir()} - {".lock"}
    texts = {f"{name}.json" for name in ("data", "environment", "fingerprint", "result")}
    texts |= {"config.yaml", "metrics.csv", "train.log"}
    assert made == {*texts, "checkpoints"}
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["world_size"], result["epochs"]) == ("finished", 2, 15)
    started = run(compose([*settings, "trainer=ddp_cpu"]), folder=tmp_path / "started")
    assert_same_weights(folder, tmp_path / "started")
    assert (result["metrics"], result["score"]) == (started.metrics, started.score)
    tables = [(path / "metrics.csv").read_text() for path in (folder, tmp_path / "started")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_what_only_the_first_process_sees_ends_all_of_them(tmp_path):
    settings = [*WINE, "name=a", "trainer=torchrun"]
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    begun = {"status": "failed", "score": None, "overrides": settings, "world_size": 3}
    (tmp_path / "outputs" / "a" / "result.json").write_text(json.dumps(begun))
    (tmp_path / "outputs" / "a" / "checkpoints").mkdir()
    (tmp_path / "outputs" / "a" / "checkpoints" / "last.ckpt").touch()
    _, errors = finish(torchrun(*settings, cwd=tmp_path), 1)  # torchrun's own code for any that is not 0
    assert errors.count("refused: this run was begun on 3 devices and would go on on 2") == 1
    codes = re.findall(r"exitcode *: *(-?[0-9]+)", errors)
    assert "2" in codes
    assert set(codes) <= {"2", "130", "-15"}  # torchrun ends the one that is slower to leave
    result = json.loads((tmp_path / "outputs" / "a" / "result.json").read_text())
    assert result["status"] == "refused"


@pytest.mark.parametrize(
    ("overrides", "message"),
    rest_slow(
        [
            (["trainer=torchrun"], "refused: under torchrun set name="),
            (["-m", "seed=1,2", "name=x"], "refused: -m under torchrun: launchers do that job"),
            (
                ["name=x"],
                "refused: trainer.devices=1, trainer.num_nodes=1: torchrun started 2 on each of 1; trainer=torch",
            ),
            (["name=x", "trainer=torchrun", "trainer.devices=3"], "refused: trainer.devices=3, trainer.num_nodes=auto"),
            (
                ["name=x", "trainer=torchrun", "trainer.num_nodes=2"],
                "refused: trainer.devices=auto, trainer.num_nodes=2",
            ),
            (["name=x", "trainer=torchrun", "trainer.max_epoch=1"], "refused: no key max_epoch in trainer"),
        ],
        lambda case: case[0] in (["trainer=torchrun"], ["name=x"]),
    ),
)
def test_refusals_are_said_once_without_torch_and_leave_nothing(tmp_path, overrides, message):
    first, second = (as_rank(rank, *overrides, cwd=tmp_path) for rank in (0, 1))
    assert first.stderr.startswith(message)
    assert len(first.stderr.splitlines()) == 1
    assert first.stdout == second.stdout == second.stderr == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_that_never_comes_is_not_waited_for(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    settings = [*WINE, "trainer=torchrun", "name=a", "trainer.timeout=3"]
    done = as_rank(0, *settings, cwd=tmp_path, code=1, **place)
    assert "WaitError: rank 0 of 2 waited in vain for the others to build the parts of the run (" in done.stderr
    result = json.loads((tmp_path / "outputs" / "a" / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"].endswith("If it only takes longer, raise trainer.timeout")


def test_a_world_is_told_by_the_environment(monkeypatch):
    assert world.current() is None
    for key, value in {
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "7",
    }.items():
        monkeypatch.setenv(key, value)
    here = world.current()
    assert (here.starter, here.rank, here.processes, here.nodes, here.local) == ("srun", 3, 4, 2, 2)
    monkeypatch.setenv("SLURM_NNODES", "3")
    with pytest.raises(ConfigError, match="srun started 4 processes on 3 nodes: each node must have as many"):
        world.check(compose(["trainer=slurm"]))
    for key, value in (RANKS | {"RANK": "1"}).items():  # torchrun inside of srun
        monkeypatch.setenv(key, value)
    assert world.current() == world.World("torchrun", 1, 2, 1)
    for key in RANKS:
        monkeypatch.delenv(key)
    for name, value in (("SLURM_JOB_NAME", "interactive"), ("SLURM_NTASKS", "1")):
        with monkeypatch.context() as inner:
            inner.setenv(name, value)
            assert world.current() is None


def test_several_nodes_need_a_starter(tmp_path):
    done = train("trainer=slurm", *WINE, cwd=tmp_path, check=2)
    assert done.stderr.startswith("refused: trainer.num_nodes=auto: torchrun or srun starts the processes")


def test_one_visible_gpu_for_each_process_is_its_own(monkeypatch):
    """srun --gpus-per-task=1 shows it: four processes on a node, and each sees a GPU with the number 0."""
    config = compose([*WINE[:3], "trainer=torchrun", "trainer.accelerator=gpu"])
    for key, value in (RANKS | {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4"}).items():
        monkeypatch.setenv(key, value)
    counts = {}
    for gpus in (1, 2, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        if gpus == 2:
            with pytest.raises(ConfigError, match="asked for 4 GPUs, found 2"):
                devices.count(config)
            continue
        counts[gpus] = devices.count(config), devices.has_own_gpu(config.trainer)
    assert counts == {1: (4, True), 4: (4, False)}
    assert devices.OwnGpu.get_parallel_devices(devices.OwnGpu.parse_devices(4)) == [torch.device("cuda", 0)] * 4
    config.trainer.accelerator = "cpu"
    assert not devices.has_own_gpu(config.trainer)


def test_lightning_takes_the_one_visible_gpu_in_every_process(monkeypatch):
    for key, value in (RANKS | {"RANK": "1", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(devices.OwnGpu, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # the trainer writes its own there, and tests after this one log
    strategy = DDPStrategy()
    trainer = Trainer(
        accelerator=devices.OwnGpu(), devices=2, strategy=strategy, plugins=[devices.environment()], logger=False
    )
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank) == (2, 1, 1)
    assert strategy.root_device == torch.device("cuda", 0)
    assert strategy.determine_ddp_device_ids() == [0]


@pytest.mark.parametrize(
    ("gpus", "shared"),
    [
        ([None, None], None),
        (["a", "b", "c"], None),
        (["a", "b", "a"], "ranks 0 and 2 see the same GPU and no other"),
        (["a", "b", "b", "a"], "ranks 1 and 2 see the same GPU"),
    ],
)
def test_processes_that_share_a_gpu_are_refused(gpus, shared):
    with pytest.raises(ConfigError, match=shared) if shared else nullcontext():
        check_gpus(gpus)
