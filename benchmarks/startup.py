"""From `python train.py` to the first optimizer step, against importing torch and Lightning.

    python benchmarks/startup.py [--quick]

Each measurement is a process of its own; the first of each is thrown away, since it may wait for the disk.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, ratio, rounds, table

TRAIN = Path(__file__).parent.parent / "train.py"
FIRST_STEP = f"""
import os, runpy, sys, torch
torch.optim.optimizer.register_optimizer_step_post_hook(lambda *_: os._exit(0))
sys.argv = ["train.py"]
runpy.run_path({str(TRAIN)!r}, run_name="__main__")
"""
COMMANDS = {
    "import torch, lightning": ["-c", "import torch, lightning"],
    "train.py, to the first step": ["-c", FIRST_STEP],
    "train.py, to a refusal": [str(TRAIN), "trainer.max_epoch=3"],
}


def seconds(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=False)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    count = 1 if parser.parse_args().quick else 7
    competitors = {name: lambda arguments=arguments: seconds(arguments) for name, arguments in COMMANDS.items()}
    rounds(competitors, 1)
    results = rounds(competitors, count)
    print(f"{machine()}\n")
    rows = [
        [name, f"{statistics.median(times):.2f}", f"{ratio(results, name, 'import torch, lightning'):.2f}"]
        for name, times in results.items()
    ]
    print(table(["", "seconds", "× the imports"], rows))


if __name__ == "__main__":
    main()
