"""From `python train.py name=x` to the first optimizer step of a run that goes on, against one that begins.

    python benchmarks/resuming.py [--quick]

The run (`mynet` on digits) was killed after 60 steps, which is in its second epoch. Beside it, how long one save within
an epoch takes, and which share of a training it takes at the default of one in ten minutes.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, rounds, seconds_table

TRAIN = Path(__file__).parent.parent / "train.py"
UNTIL_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
steps = iter(range({steps} - 1))
register_optimizer_step_post_hook(lambda *_: next(steps, None) is None and os._exit(42))
sys.argv = ["train.py", "name=x", *{typed}]
runpy.run_path({train!r}, run_name="__main__")
"""
SAVES = """
import statistics, time
from normlab import compose, run
from normlab.callbacks.within_epoch import WithinEpoch
taken, save = [], WithinEpoch._save_within
def timed(self, trainer):
    start = time.perf_counter()
    save(self, trainer)
    taken.append(time.perf_counter() - start)
WithinEpoch._save_within = timed
run(compose(["name=x", "save_every=10steps", "trainer.max_epochs=3"]))
print(statistics.median(taken))
"""
WITHIN = ["save_every=20steps"]


def until_step(steps: int, typed: list[str], folder: Path) -> float:
    """Seconds from the start of the process until its so-many-th step, at which it is killed."""
    code = UNTIL_STEP.format(steps=steps, typed=typed, train=str(TRAIN))
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    end = time.perf_counter()
    assert done.returncode == 42, done.stdout + done.stderr
    return end - start


def to_first_step(typed: list[str], killed: Path | None) -> float:
    """Seconds to the first step in a copy of a killed run's folder, or in an empty one."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if killed is not None:
            shutil.copytree(killed, folder, dirs_exist_ok=True)
        return until_step(1, typed, folder)


def seconds_of_a_save() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SAVES]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    count = 1 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory() as place:
        epoch_end, within = Path(place, "epoch_end"), Path(place, "within")
        for folder, typed in ((epoch_end, []), (within, WITHIN)):
            folder.mkdir()
            until_step(60, typed, folder)
        competitors = {
            "a run that begins": lambda: to_first_step([], None),
            "goes on from the end of an epoch": lambda: to_first_step([], epoch_end),
            "goes on within an epoch": lambda: to_first_step(WITHIN, within),
        }
        rounds(competitors, 1)
        results = rounds(competitors, count)
    print(f"{machine()}\n")
    print(seconds_table(results, "to the first step", "a run that begins", "× a run that begins"))
    save = seconds_of_a_save()
    print(
        f"\none save within an epoch: {1000 * save:.0f} ms, {save / 600:.3%} of a training that saves every ten minutes"
    )


if __name__ == "__main__":
    main()
