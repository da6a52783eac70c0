"""`train.py` as a process, as a person or torchrun starts it."""

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from torch.multiprocessing import start_processes

from helpers import warm
from helpers.cases import ROOT

RANKS = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}


def train(*overrides: str, cwd: Path, check: int = 0, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """`python train.py` as a person types it, in another folder; asserts its exit code.

    fresh: in a process that has imported nothing yet, which takes longer.
    """
    if fresh:
        command = [sys.executable, str(ROOT / "train.py"), *overrides]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    else:
        done = warm.train(overrides, cwd)
    assert done.returncode == check, done.stdout + done.stderr
    return done


def start(*overrides: str, cwd) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(file, rows: int) -> None:
    """Until a run has written so many epochs."""
    for _ in range(3600):
        if file.is_file() and len(file.read_text().splitlines()) > rows:
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} never had {rows} rows")


def forked_pair(file: str, name: str, *values: Any) -> None:
    """Calls a function of a test file as ranks 0 and 1, each in a fork of this process: neither imports torch again."""
    sys.path.insert(0, str(Path(file).parent))
    start_processes(getattr(import_module(Path(file).stem), name), values, nprocs=2, start_method="fork")
