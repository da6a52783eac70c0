"""What callbacks=recorder costs at its default interval, against the same training without it.

    python benchmarks/recording.py [--quick]

`mynet` and `resnet` on digits of 16×16, and `net` on wine, whose steps are nearly nothing but overhead; no loggers. A
run with the recorder and one without take turns. Times are those of the processor, since other work on the machine does
not count in them, and with a single thread. "× without" compares whole steps of the two runs; the other two columns say
what a recorded step takes beside the others of its own run, and what of that is left at the default interval.
"""

import argparse
import inspect
import statistics
import tempfile
import time

import torch
from common import machine, ratio, table
from lightning import Callback

import normlab
from normlab.callbacks.recorder import Recorder

EVERY = inspect.signature(Recorder).parameters["every"].default
SMALL = ["data=digits", "data.size=16", "data.channels=1"]
RUNS = {"mynet": ["model=mynet", *SMALL], "resnet": ["model=resnet", *SMALL], "net on wine": ["model=net", "data=wine"]}


class Clock(Callback):
    """The processor's seconds in each step."""

    def __init__(self):
        self.seconds = []

    def on_train_batch_start(self, *_):
        self.start = time.process_time()

    def on_train_batch_end(self, *_):
        self.seconds.append(time.process_time() - self.start)


def steps(overrides: list[str], count: int) -> list[float]:
    """The seconds of so many steps, without the first, in which much happens for the first time."""
    clock = Clock()
    length = ["trainer=cpu", "trainer.max_epochs=1000", f"trainer.max_steps={count}", "logger=none", "test=false"]
    with tempfile.TemporaryDirectory() as folder:
        normlab.run(normlab.compose([*overrides, *length]), folder, callbacks=[clock])
    return clock.seconds[1:]


def measured(overrides: list[str], count: int, rounds: int) -> list[str]:
    """A row of the table."""
    means: dict[str, list[float]] = {"with": [], "without": []}
    extra: list[float] = []
    for _ in range(rounds):
        means["without"].append(statistics.mean(steps(overrides, count)))
        seconds = steps([*overrides, "callbacks=recorder"], count)
        means["with"].append(statistics.mean(seconds))
        recorded = seconds[EVERY - 1 :: EVERY]
        extra += [each / statistics.median(seconds) - 1 for each in recorded]
    cost = statistics.median(extra)
    step = 1e3 * statistics.median(means["without"])
    return [f"{step:.1f}", f"{ratio(means, 'with', 'without'):.3f}", f"{1 + cost:.2f}", f"{100 * cost / EVERY:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    count, rounds = (EVERY + 2, 1) if parser.parse_args().quick else (4 * EVERY + 2, 5)
    torch.set_num_threads(1)
    rows = [[name, *measured(overrides, count, rounds)] for name, overrides in RUNS.items()]
    print(f"{machine()}\n")
    heads = ["", "ms a step", "× without", "a recorded step, × others", f"cost at every={EVERY}, %"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
