"""Launchers: jobs in other processes are those of this one, and a failed or killed one costs no other."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.cases import ROOT
from helpers.fair_sweeps import assert_same_fair_sweep
from helpers.processes import train

from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError
from normlab.sweeps.launchers.joblib import _Worker
from normlab.sweeps.launchers.queue import NumberedJob

WINE = ["model=net", "data=wine", "logger=none"]
SHORT = [*WINE, "trainer.max_epochs=2"]
FILES = ("metrics.csv", "config.yaml", "result.json", "environment.json", "train.log", "data.json", "checkpoints")


def results(sweep: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("*/result.json")}


def statuses(sweep: Path) -> dict[str, str]:
    return {job: result["status"] for job, result in sorted(results(sweep).items())}


def needs(launcher: str) -> str:
    package = launcher.partition("_")[0]
    if find_spec(package) is None:  # ray would leave its settings in the environment if it were imported
        pytest.skip(f"{package} is not installed")
    return f"hydra/launcher={launcher}"


@pytest.fixture(scope="module")
def basic(tmp_path_factory) -> Path:
    """A sweep of which one job is refused, by Hydra's own launcher: in one process, one after the other."""
    folder = tmp_path_factory.mktemp("basic")
    train("-m", *SHORT, "norm=batch,instance,group", "name=s", cwd=folder, check=1)
    return folder / "outputs" / "s"


LONG = [pytest.param(launcher, marks=pytest.mark.endurance) for launcher in ("ray", "submitit_local")]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", *LONG])
def test_jobs_are_those_of_the_basic_launcher_and_a_refused_one_is_told(launcher, basic, tmp_path):
    typed = [needs(launcher), *SHORT, "norm=batch,instance,group", "name=s"]
    done = train("-m", *typed, cwd=tmp_path, check=1)
    sweep = tmp_path / "outputs" / "s"
    assert statuses(sweep) == {"0": "finished", "1": "refused", "2": "finished"}
    assert "norm=instance takes its statistics over space" in done.stderr
    for job in ("0", "2"):
        here, there = results(sweep)[job], results(basic)[job]
        assert all((sweep / job / name).exists() for name in FILES)
        assert (sweep / job / "metrics.csv").read_bytes() == (basic / job / "metrics.csv").read_bytes()
        for key in ("score", "metrics", "config_hash", "overrides", "world_size"):
            assert here[key] == there[key], key
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LONG)
def test_a_fair_sweep_is_that_of_the_basic_launcher(launcher, tmp_path):
    typed = ["-m", "sweep=fair", *SHORT, "norm=batch,group", "fair.trials=2", "fair.seeds=2", "trainer=cpu"]
    train(*typed, needs(launcher), "name=there", cwd=tmp_path)
    train(*typed, "name=here", cwd=tmp_path)
    assert_same_fair_sweep(tmp_path / "outputs" / "there", tmp_path / "outputs" / "here")


@pytest.mark.slow
def test_jobs_side_by_side_share_the_cores_out(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    done = train("-m", needs("joblib"), "hydra.launcher.n_jobs=2", *SHORT, "seed=1,2", "name=s", cwd=tmp_path)
    assert done.stderr == ""
    starts = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/s/*/environment.json")]
    assert [start["threads"] for (start,) in starts] == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2


def holders(file: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if entry.readlink() == file:
                found.append(int(entry.parts[2]))
        except OSError:  # it has just ended
            continue
    return found


def start(*overrides: str, cwd: Path) -> subprocess.Popen[str]:
    """A sweep of three long jobs, two at a time; waits until both have trained, the second for an epoch or two."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *overrides, *WINE, "trainer.max_epochs=100"]
    command += ["seed=1,2,3", "name=s"]
    sweep = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tables = [cwd / "outputs" / "s" / job / "metrics.csv" for job in ("0", "1")]
    for _ in range(3600):
        if all(table.is_file() and len(table.read_text().splitlines()) > 2 for table in tables):
            return sweep
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
    raise AssertionError("the jobs never trained")


SUBMITTED_LOST = r"local job \d+ ended without a result, in state \w+; see outputs/s/.submitit/\S+\.err"

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc, which Linux has")


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "keys", "error"),
    [
        ("joblib", ["hydra.launcher.n_jobs=2"], "its process was killed, perhaps for want of memory"),
        pytest.param("submitit_local", [], SUBMITTED_LOST, marks=pytest.mark.endurance),
    ],
)
def test_a_killed_process_costs_its_own_job_alone_and_the_same_command_goes_on(launcher, keys, error, tmp_path):
    launcher = [needs(launcher), *keys]
    process = start(*launcher, cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    (worker,) = holders(sweep / "1" / "train.log")
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(rf"job 1 \(seed=2\) failed: {error}", errors)
    assert "Traceback" not in errors
    assert statuses(sweep) == {"0": "finished", "1": "failed", "2": "finished"}
    assert re.fullmatch(error, results(sweep)["1"]["error"])
    train("-m", *launcher, *WINE, "trainer.max_epochs=100", "seed=1,2,3", "name=s", cwd=tmp_path)
    train(*WINE, "trainer.max_epochs=100", "seed=2", "name=whole", cwd=tmp_path)
    assert set(statuses(sweep).values()) == {"finished"}
    whole = tmp_path / "outputs" / "whole" / "metrics.csv"
    assert (sweep / "1" / "metrics.csv").read_text() == whole.read_text()


class Pids:
    """A sweep whose jobs return their process."""

    def run(self, job):
        return os.getpid()


@pytest.mark.slow
def test_a_worker_that_is_killed_after_its_last_job_is_replaced():
    worker = _Worker(threads=1, runner=Pids())
    first = worker.pid.result()
    waiting = worker.pool.submit(time.sleep, 60)
    os.kill(first, signal.SIGKILL)
    assert isinstance(waiting.exception(), BrokenExecutor)
    assert worker.start(NumberedJob(0, ())).result() not in (first, os.getpid())


@linux
@pytest.mark.endurance
def test_ray_starts_a_killed_job_again(tmp_path):
    process = start(needs("ray"), "hydra.launcher.ray.init.num_cpus=2", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    (worker,) = holders(sweep / "1" / "train.log")
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert statuses(sweep) == {"0": "finished", "1": "finished", "2": "finished"}
    assert "resuming from" in (sweep / "1" / "train.log").read_text()


RAY = pytest.param(["ray"], marks=pytest.mark.endurance)  # its start may take minutes on a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], RAY], ids=lambda words: words[0])
def test_ctrl_c_is_noted_by_every_job(launcher, tmp_path):
    process = start(needs(launcher[0]), *launcher[1:], cwd=tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command with name=s goes on" in errors.splitlines()
    assert statuses(tmp_path / "outputs" / "s") == {"0": "interrupted", "1": "interrupted"}


@linux
@pytest.mark.slow
def test_jobs_end_with_the_sweep_that_was_killed(tmp_path):
    """Left behind, they would write into folders that the same command takes for its own."""
    process = start(needs("joblib"), "hydra.launcher.n_jobs=2", cwd=tmp_path)
    process.kill()
    process.communicate()
    logs = [tmp_path / "outputs" / "s" / job / "train.log" for job in ("0", "1")]
    for _ in range(100):
        if not any(holders(log) for log in logs):
            break
        time.sleep(0.1)
    assert not any(holders(log) for log in logs)
    assert statuses(tmp_path / "outputs" / "s") == {"0": "running", "1": "running"}


@pytest.mark.endurance
@pytest.mark.parametrize("launcher", ["joblib", "ray"])
def test_a_job_may_start_processes_of_its_own(launcher, tmp_path):
    train("-m", needs(launcher), *SHORT, "trainer=ddp_cpu", "seed=1,2", "name=s", cwd=tmp_path)
    sweep = tmp_path / "outputs" / "s"
    assert {job: result["world_size"] for job, result in results(sweep).items()} == {"0": 2, "1": 2}
    train(*SHORT, "trainer=ddp_cpu", "seed=2", "name=alone", cwd=tmp_path)
    alone = tmp_path / "outputs" / "alone" / "metrics.csv"
    assert (sweep / "1" / "metrics.csv").read_text() == alone.read_text()


@pytest.mark.slow
def test_a_search_of_jobs_side_by_side(tmp_path):
    optuna = pytest.importorskip("optuna")
    search = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4"]
    side = [needs("joblib"), "hydra.sweeper.n_jobs=2", "optimizer.lr=interval(0.01,0.1)"]
    done = train("-m", *search, *side, *SHORT, "name=s", cwd=tmp_path)
    assert done.stderr == ""
    sweep = tmp_path / "outputs" / "s"
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{sweep / 'study.db'}")
    found = results(sweep)
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == len(study.trials) == len(found) == 4
    for trial in study.trials:
        result = found[str(trial.number)]
        assert trial.value == result["score"]
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in result["overrides"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hydra/launcher=joblib hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: expected a whole number"),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=two", "hydra.launcher.n_jobs=two: expected a whole number"),
        ("hydra/launcher=joblib hydra.launcher.njobs=2", "no key njobs in hydra.launcher; did you mean n_jobs?"),
        ("hydra/launcher=jobli", "no option jobli in hydra/launcher; did you mean joblib?"),
        ("hydra/launcher=joblib trainer=slurm", "torchrun or srun starts the processes of several nodes"),
        ("hydra/launcher=ray norm=batch,goup", "no option goup in norm; did you mean group?"),
    ],
)
def test_refused_before_the_first_job(typed, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "ray" in typed:
        needs("ray")
    with pytest.raises(ConfigError) as refusal:
        check_sweep([*typed.split(), "seed=1,2"])
    assert message in str(refusal.value)
    assert not list(tmp_path.iterdir())
