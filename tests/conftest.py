"""Shared pieces: quick runs in a temporary folder, and the options that `conf/` holds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.utils import Bunch

from normlab import config

ROOT = Path(__file__).parent.parent
QUICK = ["trainer=debug", "logger=none", "data.batch_size=32"]

# Two processes of the suite share the cores; more threads than cores make every step slower.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def options(group: str) -> list[str]:
    """A group's options; an empty group would make a test pass without testing anything."""
    found = config.options(group)
    assert found, f"conf/{group} holds no option"
    return found


def bundled() -> list[str]:
    """The data sets that need neither a file nor a download."""
    needing = re.compile(r"^path:|^root:|common/files", re.M)
    return [option for option in options("data") if not needing.search((ROOT / f"conf/data/{option}.yaml").read_text())]


def train(*overrides: str, cwd: Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    """`python train.py` as a person types it, in another folder; asserts its exit code."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.fixture
def quick_run(tmp_path):
    """Runs a configuration in this process: one batch of each stage unless told otherwise."""
    from normlab import compose, run

    def go(*overrides: str, folder: str = "run", data=None):
        return run(compose([*QUICK, *overrides]), folder=tmp_path / folder, data=data)

    return go


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Gives a data option what it is to read, and returns the overrides that say where that lies."""

    def go(option: str) -> list[str]:
        if option not in ("csv", "parquet", "openml"):
            return []
        frame = load_iris(as_frame=True).frame.rename(columns=lambda name: name.removesuffix(" (cm)"))
        frame["size"] = frame["petal length"].map(lambda length: "small" if length < 3 else "large")
        if option == "openml":
            bunch = Bunch(frame=frame, target_names=["target"])
            monkeypatch.setattr("normlab.data.openml.fetch_openml", lambda **keys: bunch)
            return ["data.name=iris"]
        path = tmp_path / f"iris.{option}"
        frame.to_csv(path, index=False) if option == "csv" else frame.to_parquet(path)
        return [f"data.path={path}", "data.target=target"]

    return go
