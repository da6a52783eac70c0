"""Jobs side by side on a machine with several GPUs, of which this one needs none: each job sees its own."""

import os
from concurrent.futures import Future

import pytest
import torch
from omegaconf import OmegaConf

from normlab.sweeps.launchers import gpus as gpus_module
from normlab.sweeps.launchers import joblib as processes
from normlab.sweeps.launchers.gpus import shared_out, visible


@pytest.mark.parametrize("named", [None, "2,0", " GPU-8a , GPU-3f ", "1,7"])
def test_gpus_are_named_as_cuda_does(named, monkeypatch, tmp_path):
    """Of devices that are named and not there, CUDA counts those before."""
    monkeypatch.setattr(gpus_module, "DRIVERS", (str(tmp_path),))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if named == "1,7" else 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible() == {None: ["0", "1"], "2,0": ["2", "0"], "1,7": ["1"]}.get(named, ["GPU-8a", "GPU-3f"])


def test_torch_is_not_asked_where_there_is_no_driver(monkeypatch):
    monkeypatch.setattr(gpus_module, "DRIVERS", ("/nowhere",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("asked"))
    assert visible() == []


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("devices", [*range(1, 10), "auto"])
def test_no_gpu_is_in_two_groups(count, devices):
    names = [str(number) for number in range(count)]
    groups = shared_out(names, devices)
    size = count if devices == "auto" else min(devices, count)
    assert [len(group) for group in groups] == [size] * (count // size)
    given = [name for group in groups for name in group]
    assert given == names[: len(given)]


class Sees:
    """A sweep whose jobs return the GPUs that they see."""

    def __init__(self, folder, **trainer):
        sweep = {"hydra": {"sweep": {"dir": str(folder)}}}
        self.settings = OmegaConf.create(sweep | {"trainer": {"accelerator": "auto", "devices": 1, **trainer}})

    def run(self, job):
        return job.number, os.environ["CUDA_VISIBLE_DEVICES"]


class Thread:
    """In place of a worker process: what it was made with."""

    made: list = []  # noqa: RUF012

    def __init__(self, threads, sweep, gpus=None):
        self.made.append((threads, gpus))

    def start(self, job):
        future = Future()
        future.set_result(job.number)
        return future

    def end(self, job, future):
        return future.result()


@pytest.mark.parametrize(
    ("names", "trainer", "n_jobs", "threads", "expected"),
    [
        ("0 1 2 3", {}, -1, 2, ["0", "1", "2", "3"]),
        ("0 1 2 3", {"devices": 2}, -1, 2, ["0,1", "2,3"]),
        ("0 1 2 3", {"devices": "auto"}, -1, 2, ["0,1,2,3"]),
        ("0 1", {}, 5, 1, ["0", "1", "0", "1", "0"]),  # a person asked for so many
        ("", {}, -1, 1, [None] * 6),
        ("0 1", {"accelerator": "cpu"}, -1, 1, [None] * 6),
    ],
)
def test_so_many_jobs_at_a_time_as_there_are_gpus(names, trainer, n_jobs, threads, expected, monkeypatch, tmp_path):
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(processes, "visible", names.split)
    monkeypatch.setattr(processes, "_Worker", Thread)
    Thread.made = []
    launcher = processes.JoblibLauncher(n_jobs)
    launcher.runner = Sees(tmp_path, **trainer)
    assert launcher.launch([()] * 6, 0) == [0, 1, 2, 3, 4, 5]
    assert [",".join(seen) if seen else None for _, seen in Thread.made] == expected
    assert {made for made, _ in Thread.made} == {threads}


@pytest.mark.slow
def test_a_worker_process_and_those_it_starts_see_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "visible", lambda: ["5", "7"])
    launcher = processes.JoblibLauncher(2)
    launcher.runner = Sees(tmp_path)
    seen = launcher.launch([()] * 4, 0)
    assert {gpu for _, gpu in seen} == {"5", "7"}
