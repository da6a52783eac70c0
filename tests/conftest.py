"""Shared pieces: quick runs in a temporary folder, and the options that `conf/` holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
