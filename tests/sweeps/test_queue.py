"""The queue of a sweep: who is free takes the next job, with every launcher."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from normlab.sweeps.launchers import joblib
from normlab.sweeps.launchers.joblib import JoblibLauncher
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.launchers.ray import RayLauncher
from normlab.sweeps.launchers.submitit import SubmititLauncher

PATIENCE = 120  # seconds until a test is given up; no result depends on them


class Unequal:
    """A sweep of which job 0 ends after job 4 has begun, if ever, and the others at once. Files tell what happened."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = OmegaConf.create({"trainer": {"accelerator": "cpu", "devices": 1}})

    def run(self, job: NumberedJob) -> JobReturn:
        (self.folder / f"began {job.number}").touch()
        for _ in range(PATIENCE * 20):
            if job.number != 0 or (self.folder / "began 4").exists():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("job 4 waits for job 0")
        return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)


class ThreadWorker:
    """A worker of joblib's launcher, without a process."""

    def __init__(self, threads, runner, gpus=None):
        self.runner, self.pool = runner, ThreadPoolExecutor(1)

    def start(self, job):
        return self.pool.submit(self.runner.run, job)

    def end(self, job, future):
        return future.result()


@pytest.fixture(autouse=True)
def ray_leaves_nothing():
    with patch.dict(os.environ):
        yield
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def launcher_of(kind: str, folder: Path, monkeypatch):
    if kind == "threads":
        monkeypatch.setattr(joblib, "_Worker", ThreadWorker)
    else:
        pytest.importorskip(kind)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = {"ray": lambda: RayLauncher(OmegaConf.create({"init": {"num_cpus": 2}, "remote": {"num_cpus": 1}}))}
    made["submitit"] = lambda: SubmititLauncher("local", str(folder / "%j"), timeout_min=5)
    launcher = made.get(kind, lambda: JoblibLauncher(2))()
    launcher.runner = Unequal(folder)
    return launcher


KINDS = [pytest.param("joblib", marks=pytest.mark.slow), pytest.param("submitit", marks=pytest.mark.slow)]
KINDS += [pytest.param("ray", marks=pytest.mark.endurance)]


@pytest.mark.parametrize("kind", ["threads", *KINDS])
def test_no_job_waits_for_the_slowest_of_two_at_a_time(kind, tmp_path, monkeypatch):
    launcher = launcher_of(kind, tmp_path, monkeypatch)
    waiting, order, running = iter(range(6)), [], set()

    def next_job():
        number = next(waiting, None)
        if number is None:
            return None
        running.add(number)
        assert len(running) <= 2
        return NumberedJob(number, (f"seed={number}",))

    def ended(number, returned):
        running.remove(number)
        order.append(number)
        assert returned.overrides == (f"seed={number}", f"hydra.sweep.subdir={number}")

    serve(launcher, next_job, ended, 2)
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert order.index(0) > order.index(3)


def test_a_queue_that_has_nothing_for_now_is_asked_again_when_a_job_has_ended(tmp_path, monkeypatch):
    """Job 1 is there after job 0, although a worker is free, and jobs 2 and 3 after that one."""
    launcher = launcher_of("threads", tmp_path, monkeypatch)
    (tmp_path / "began 4").touch()
    ready, events = [0], []

    def next_job():
        return NumberedJob(ready.pop(0), ()) if ready else None

    def ended(number, returned):
        events.append(number)
        ready.extend({0: [1], 1: [2, 3]}.get(number, []))

    serve(launcher, next_job, ended)
    assert events[:2] == [0, 1]
    assert sorted(events[2:]) == [2, 3]


class OnlyLaunches:
    """A launcher of somebody else's, which knows Hydra's `launch` alone."""

    def __init__(self):
        self.batches = []

    def launch(self, job_overrides, initial_job_idx):
        self.batches.append((initial_job_idx, [line[-1] for line in job_overrides]))
        return [JobReturn(overrides=line, status=JobStatus.COMPLETED) for line in job_overrides]


class OneByOne(OnlyLaunches, BasicLauncher):
    pass


@pytest.mark.parametrize(
    ("launcher", "most", "sizes"), [(OnlyLaunches, 2, [2, 2, 1]), (OnlyLaunches, None, [5]), (OneByOne, None, [1] * 5)]
)
def test_a_launcher_that_serves_no_queue_gets_batches(launcher, most, sizes):
    numbers, events = [7, 2, 3, 11, 5], []
    waiting = iter(numbers)

    def next_job():
        number = next(waiting, None)
        events.append(f"asked {number}")
        return None if number is None else NumberedJob(number, ())

    engine = launcher()
    serve(engine, next_job, lambda number, returned: events.append(f"ended {number}"), most)
    assert [len(folders) for _, folders in engine.batches] == sizes
    assert [line for _, folders in engine.batches for line in folders] == [f"hydra.sweep.subdir={n}" for n in numbers]
    assert [event for event in events if "ended" in event] == [f"ended {number}" for number in numbers]
    if sizes[0] == 1:  # each job is told of before the next is asked for
        assert events[:4] == ["asked 7", "ended 7", "asked 2", "ended 2"]


def test_no_worker_is_made_where_there_is_no_job(tmp_path, monkeypatch):
    launcher = launcher_of("threads", tmp_path, monkeypatch)
    monkeypatch.setattr(launcher, "_prepare", lambda most: pytest.fail("made ready"))
    serve(launcher, lambda: None, lambda *_: None)
