"""Fair sweeps whose jobs are not run."""

import json
from functools import cache
from math import log10
from random import Random

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from normlab.config.arms import Fair
from normlab.config.compose import compose_job
from normlab.config.sweep import check_sweep
from normlab.errors import JobError
from normlab.folder import writing
from normlab.folder.identity import config_hash
from normlab.sweeps.fair.sweeper import FairSweeper
from normlab.sweeps.jobs import CheckedJobs

WINE = ["sweep=fair", "model=net", "data=wine", "logger=none"]

BEST = {"Batch": 0.05, "Group": 0.01, "NoNorm": 0.003}  # the rates at which the surrogate arms are best


@cache
def composed(overrides):
    """A job's configuration, as the process that runs it composes it."""
    return compose_job(overrides).config


@cache
def _compared(typed):
    return check_sweep(typed).fair


def compared(*typed) -> Fair:
    """What a fair sweep of a small network compares."""
    fair = _compared((*WINE, *typed))
    assert fair is not None
    return fair


class Stop(BaseException):
    """Stands for a kill: no failure of a job."""


class FakeLauncher:
    """Writes results without training: the score falls with the distance of the rate from the arm's best one.

    A rate above a tenth diverges. stops: after so many jobs all are killed. ends: what becomes of a job of a folder
    otherwise, as parts of its result. workers: how many jobs run at a time, which end in an order that `seed` decides.
    """

    def __init__(self, path, stops=None, ends=None, workers=1, seed=0):
        self.path, self.stops, self.ends, self.launched = path, stops, ends or {}, {}
        self.workers, self.random, self.running = workers, Random(seed), {}
        self.most = 0  # jobs that have run at a time

    def serve(self, next_job, ended, most):
        while True:
            while len(self.running) < self.workers and (job := next_job()) is not None:
                self.running[job.number] = self._begin(job.number, job.overrides[:-1])  # the last one says the folder
            self.most = max(self.most, len(self.running))
            if not self.running:
                return
            if len(self.launched) == self.stops:
                raise Stop
            number = self.random.choice(sorted(self.running))
            ended(number, self._end(number, *self.running.pop(number)))

    def _begin(self, number, typed):
        config = composed(typed)
        result = {"overrides": [*typed], "config_hash": config_hash(config), "status": "running", "score": None}
        result |= {"error": None, "metrics": {}, "score_name": "val/acc", "score_mode": "max", "seconds": 1.0}
        (self.path / str(number)).mkdir(exist_ok=True)
        (self.path / str(number) / "config.yaml").touch()
        writing.write_result(self.path / str(number), result)
        return config, result

    def _end(self, number, config, result):
        self.launched[number] = config
        result |= self.end(config) | self.ends.get(number, {})
        writing.write_result(self.path / str(number), result)
        job = JobReturn(status=JobStatus.COMPLETED if result["status"] == "finished" else JobStatus.FAILED)
        job.return_value = None if result["status"] == "finished" else JobError(result["error"])
        return job

    def end(self, config):
        rate, name = config.optimizer.lr, config.norm._target_.rpartition(".")[2]
        if rate > 0.1:
            return {"status": "failed", "error": "FloatingPointError: train/loss is nan"}
        score = 1 - abs(log10(rate / BEST[name])) / 10 - config.seed / 1e4
        tested = {"metrics": {"test/acc": score - 0.01}} if config.test else {}
        return {"status": "finished", "score": score, **tested}


def fair_sweep(path, *typed, **fake):
    """A fair sweep; gives its launcher, and what fair.json says."""
    sweeper = FairSweeper(None)
    sweeper.loader = CheckedJobs([], fair=compared(*typed))
    sweeper.settings = OmegaConf.create({"hydra": {"sweep": {"dir": str(path)}}})
    sweeper.engine = launcher = FakeLauncher(path, **fake)  # pyright: ignore[reportAttributeAccessIssue]
    sweeper.sweep([])
    return launcher, told(path)


def told(path):
    return json.loads((path / "fair.json").read_text())


def assert_same_fair_sweep(one, other):
    """Asserts that two sweeps compared the same and came out the same; fresh runs alone were tested."""
    assert told(one) == told(other)
    fresh = {run["job"] for arm in told(one)["arms"] for run in arm["fresh"]}
    for file in other.glob("*/result.json"):
        metrics = json.loads(file.read_text())["metrics"]
        assert json.loads((one / file.parent.name / "result.json").read_text())["metrics"] == metrics
        assert any(key.startswith("test/") for key in metrics) == (int(file.parent.name) in fresh)
