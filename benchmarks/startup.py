"""From `python train.py` to the first optimizer step, against importing torch and Lightning.

    python benchmarks/startup.py [--quick]

Each measurement is a process of its own; the first of each is thrown away, since it may wait for the disk.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, rounds, seconds_table

TRAIN = Path(__file__).parent.parent / "train.py"
FIRST_STEP = f"""
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(42))
sys.argv = ["train.py"]
runpy.run_path({str(TRAIN)!r}, run_name="__main__")
"""
COMMANDS = {  # with the exit code that says that it went as far as it should
    "import torch, lightning": (["-c", "import torch, lightning"], 0),
    "train.py, to the first step": (["-c", FIRST_STEP], 42),
    "train.py, to a refusal": ([str(TRAIN), "trainer.max_epoch=3"], 2),
}


def seconds(arguments: list[str], expected: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        end = time.perf_counter()
    assert done.returncode == expected, done.stdout + done.stderr
    return end - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    count = 1 if parser.parse_args().quick else 7
    competitors = {name: lambda command=command: seconds(*command) for name, command in COMMANDS.items()}
    rounds(competitors, 1)
    results = rounds(competitors, count)
    print(f"{machine()}\n")
    print(seconds_table(results, "", "import torch, lightning", "× the imports"))


if __name__ == "__main__":
    main()
