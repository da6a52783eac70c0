"""What the jobs of a sweep cost beyond their training: ours against lightning-hydra-template's way.

    python benchmarks/sweeps.py [--quick]

Jobs of `net` on wine, three epochs each, no logger but metrics.csv. Targets: at most 0.3 s beyond its training, joblib
at least 1.7 × `-m`.

- `-m`: one process, one job after the other.
- `-m hydra/launcher=joblib`: two processes that share the two cores.
- a process each: everything is imported and loaded anew for each job.
- template.py, both ways: what lightning-hydra-template's train.py does around the same network and data.

A sweep of one job is run beside each, and taken off: what it costs is the process's start. The rest are the other jobs'
own seconds; those beyond `Trainer.fit` and `Trainer.test`, which are timed inside, are a job's cost.

A second table is of a search's jobs, two at a time on joblib's workers, which sleep for times as unequal as those of
small and large networks: the place of a job that has ended is taken at once, as now, or batches of two wait for their
slower one, as before. Two workers need at least half of all sleep. Target: at most 0.85 of the time of the batches.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import machine, ratio, rounds, seconds_table, table
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from normlab.sweeps.launchers.joblib import JoblibLauncher
from normlab.sweeps.launchers.queue import NumberedJob, serve

TRAIN, TEMPLATE = Path(__file__).parent.parent / "train.py", Path(__file__).parent / "template.py"
OURS = ["model=net", "data=wine", "logger=none", "trainer=cpu", "trainer.max_epochs=3"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
TIMED = """
import runpy, sys, time
from lightning import Trainer
inside = 0.0
def timed(method):
    def call(*args, **keys):
        global inside
        start = time.perf_counter()
        try:
            return method(*args, **keys)
        finally:
            inside += time.perf_counter() - start
    return call
Trainer.fit, Trainer.test = timed(Trainer.fit), timed(Trainer.test)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(f"inside {inside}", flush=True)
"""


def seconds(*command: str) -> tuple[float, float]:
    """From start to exit, and of it inside of the trainer where the command tells it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - start
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.split()[-2:]
    return whole, float(last[1]) if last[:1] == ["inside"] else 0.0


def sweep(*command: str, jobs: int, first: int = 1) -> tuple[float, float]:
    """Seconds of each further job when `first` jobs have made the start; the whole, and what is beyond the trainer."""
    few, many = (seconds(*command, f"seed=range({count})") for count in (first, jobs))
    whole, inside = ((after - before) / (jobs - first) for after, before in zip(many, few, strict=True))
    return whole, whole - inside


def each(*command: str, jobs: int) -> tuple[float, float]:
    """Seconds of a job that is a process; all of them but the trainer's are beyond it."""
    found = [seconds("-c", TIMED, *command, f"seed={seed}") for seed in range(jobs)]
    whole, inside = (statistics.mean(column) for column in zip(*found, strict=True))
    return whole, whole - inside


class Sleeping:
    """The jobs of a sweep, which sleep for as many seconds as their one override says."""

    def __init__(self, folder: str):
        hydra = {"sweep": {"dir": folder}}
        self.settings = OmegaConf.create({"hydra": hydra, "trainer": {"accelerator": "cpu", "devices": 1}})

    def run(self, job: NumberedJob) -> JobReturn:
        time.sleep(float(job.overrides[0]))
        return JobReturn(status=JobStatus.COMPLETED)


def unequal(jobs: int, count: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of `jobs` jobs by the queue and in batches of two, and half of their sleep."""
    draw = random.Random(0)
    lengths = [str(draw.lognormvariate(-1, 0.8)) for _ in range(jobs)]
    with tempfile.TemporaryDirectory() as folder:
        launcher = JoblibLauncher(2)
        launcher.runner = Sleeping(folder)  # type: ignore[assignment]
        launcher.launch([["0"], ["0"]], 0)  # starts the workers

        def queue() -> None:
            waiting = iter([NumberedJob(number, (length,)) for number, length in enumerate(lengths)])
            serve(launcher, partial(next, waiting, None), lambda number, returned: None, 2)

        def batches() -> None:
            for first in range(0, jobs, 2):
                launcher.launch([[length] for length in lengths[first : first + 2]], first)

        def timed(way: Callable[[], None]) -> float:
            start = time.perf_counter()
            way()
            return time.perf_counter() - start

        ways = {"queue": queue, "batches of two": batches}
        measured = rounds({name: partial(timed, way) for name, way in ways.items()}, count)
    return measured, sum(map(float, lengths)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few jobs once, to see that it runs")
    count, jobs, single = (1, 8, 2) if parser.parse_args().quick else (5, 40, 4)
    ours, template = str(TRAIN), str(TEMPLATE)
    measures = {
        "-m": lambda: sweep("-c", TIMED, ours, "-m", *OURS, jobs=jobs),
        "-m hydra/launcher=joblib": lambda: sweep(ours, "-m", *OURS, *JOBLIB, jobs=jobs, first=2),
        "a process each": lambda: each(ours, *OURS, jobs=single),
        "template, -m": lambda: sweep("-c", TIMED, template, "-m", jobs=jobs),
        "template, a process each": lambda: each(template, jobs=single),
    }
    beyond: dict[str, list[float]] = {name: [] for name in measures}

    def measure(name: str) -> float:
        whole, rest = measures[name]()
        beyond[name].append(rest)
        return whole

    results = rounds({name: lambda name=name: measure(name) for name in measures}, count)
    print(f"{machine()}, {jobs} jobs a sweep, {single} of a process each, {count} rounds\n")
    rows = []
    for name in measures:
        cost = "" if "joblib" in name else f"{statistics.median(beyond[name]):.2f}"  # its jobs overlap
        whole = statistics.median(results[name])
        rates = [f"{1 / ratio(results, name, other):.2f}" for other in ("-m", "template, -m")]
        rows.append([name, f"{whole:.2f}", cost, f"{60 / whole:.0f}", *rates])
    header = ["", "seconds a job", "beyond its training", "jobs a minute", "× -m", "× template, -m"]
    print(table(header, rows))

    measured, least = unequal(2 * jobs, count)
    print(f"\n{2 * jobs} jobs of unequal length, two at a time, of which half the sleep is {least:.2f} s\n")
    print(seconds_table(measured, "", "batches of two", "÷ batches"))


if __name__ == "__main__":
    main()
