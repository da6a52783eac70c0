"""2 processes × batch 4 train the network of 1 process × batch 8: every norm that syncs × every network of ours.

One pair of processes trains all cases one after the other (`walk`, or this file where torchrun starts it) and leaves
what each of the two ended with; the test compares that with one process. 24 steps with momentum in float64; the last
training batch of an epoch has 2 + 3 samples, the last one of validation and test 0 + 1.
"""

import functools
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from helpers.cases import ROOT, options
from hydra.utils import instantiate
from lightning import Callback
from omegaconf import DictConfig

from normlab import compose, run
from normlab.config.options import read_option
from normlab.data.digits import Digits
from normlab.norms.common.declaration import declaration
from normlab.runner import launch, launched

Case = tuple[str, str]  # norm and network
Jobs = list[tuple[DictConfig, Path]]  # configurations, and the folder of each

SETTINGS = ["data.size=8", "trainer.max_epochs=3", "trainer.precision=64-true", "logger=none"]
KEYS = {
    # Ghost batches of two samples divide 4, 8, and 5 into 2 + 3. Here and in groups of two channels a variance is
    # sometimes that of two values that are nearly equal; a small ε would make too much of rounding.
    "ghost": ["norm.size=2", "norm.eps=0.1"],
    "batch_channel": ["norm.eps=0.1"],
    "renorm": ["norm.start=0", "norm.end=12"],  # bounds that open while it trains
}
NORMS = [
    name
    for name in options("norm")
    if (found := declaration(instantiate(read_option("norm", name))(12, 2))) and found.synchronisable
]
NETWORKS = [name for name in options("model") if "keep" not in read_option("model", name)]  # not other libraries'
EVERY = list(itertools.product(NORMS, NETWORKS))
PLAIN = ("batch", "my_model")
SOME = sorted({(norm, "my_model") for norm in NORMS} | {("batch", network) for network in NETWORKS})


class Few(Digits):
    """79 digits: seven batches of 8 to train on and one of 5, and 9 each to validate and to test on."""

    def load(self):
        parts = (whole[:79].split([61, 9, 9]) for whole in super().load()["train"])
        return dict(zip(("train", "val", "test"), zip(*parts, strict=True), strict=True))


class Keep(Callback):
    """Keeps what each process ends with: parameters and running statistics."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_end(self, trainer, task):
        assert trainer.global_step == 24
        torch.save(task.network.state_dict(), self.folder / f"network{trainer.global_rank}.pt")


def configuration(case: Case, folder: Path, *overrides: str) -> DictConfig:
    norm, network = case
    config = compose([f"norm={norm}", *KEYS.get(norm, []), f"model={network}", *SETTINGS, *overrides])
    config.data["_target_"] = f"{__name__}.Few"
    config.callbacks = {"keep": {"_target_": f"{__name__}.Keep", "folder": str(folder)}}
    return config


def keep_metrics(metrics: dict[str, float], folder: Path) -> None:
    torch.save(metrics, folder / f"metrics{os.environ['RANK']}.pt")


def walk(jobs: Jobs, folder: Path, checkpoint: None, scratch: Path) -> None:
    """What each of the processes that `Launcher` starts does."""
    for config, own_folder in jobs:
        keep_metrics(launched.work(config, own_folder, checkpoint, scratch).metrics, own_folder)


def by_launcher(jobs: Jobs, folder: Path) -> None:
    """Trains as `trainer=ddp_cpu` does, but one run after the other in the same processes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(launch, "work", walk)
        monkeypatch.setattr(launch, "timeout", lambda jobs: timedelta(minutes=10))
        launch.Launcher(jobs, folder, None, 2)._attempt()


def by_torchrun(jobs: Jobs, folder: Path) -> None:
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    known = os.environ | {"PYTHONPATH": str(ROOT / "tests")}  # for helpers/, as pytest has it
    done = subprocess.run(
        [*command, str(folder / "jobs")], env=known, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


WAYS = {"ddp_cpu": by_launcher, "torchrun": by_torchrun}


def two(way: str, cases: Sequence[Case], folder: Path) -> None:
    """Trains all cases on two processes, and PLAIN once more with statistics of each process."""
    typed = [f"trainer={way}", "trainer.accelerator=cpu", "data.batch_size=4"]
    jobs = [(configuration(case, folder / "-".join(case), *typed), folder / "-".join(case)) for case in cases]
    apart = configuration(PLAIN, folder / "apart", *typed, "trainer.sync_batchnorm=false")
    jobs.append((apart, folder / "apart"))
    for _, own_folder in jobs:
        (own_folder / "checkpoints").mkdir(parents=True)
    WAYS[way](jobs, folder)


@functools.cache
def one(case: Case) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """What one process ends with and measures."""
    with TemporaryDirectory() as folder:
        config = configuration(case, Path(folder), "trainer=cpu", "data.batch_size=8")
        metrics = run(config, folder).metrics
        return torch.load(Path(folder, "network0.pt")), metrics


def difference(case: Case, folder: Path, rank: int) -> float:
    """The largest difference of a process's parameters and running statistics from those of one process alone."""
    found, (expected, _) = torch.load(folder / f"network{rank}.pt"), one(case)
    assert found.keys() == expected.keys()
    return max((found[key] - value).abs().max().item() for key, value in expected.items())


@pytest.mark.parametrize(
    ("way", "cases"),
    [
        pytest.param("ddp_cpu", SOME, id="ddp_cpu-some", marks=pytest.mark.slow),
        pytest.param("ddp_cpu", EVERY, id="ddp_cpu-every", marks=pytest.mark.endurance),
        pytest.param("torchrun", EVERY, id="torchrun-every", marks=pytest.mark.endurance),
    ],
)
def test_two_processes_train_the_network_of_one(way, cases, tmp_path):
    two(way, cases, tmp_path)
    off = {(case, rank): difference(case, tmp_path / "-".join(case), rank) for case in cases for rank in (0, 1)}
    assert {key: value for key, value in off.items() if not value <= 1e-10} == {}
    assert difference(PLAIN, tmp_path / "apart", 0) > 0.1  # the comparison can fail
    for case, rank in off:
        measured = torch.load(tmp_path / "-".join(case) / f"metrics{rank}.pt")
        assert measured == pytest.approx(one(case)[1], rel=1e-6, abs=0), case  # torchmetrics keeps float32


if __name__ == "__main__":
    for config, folder in pickle.loads(Path(sys.argv[1]).read_bytes()):
        keep_metrics(run(config, folder).metrics, folder)
