"""Searches whose jobs are not run."""

import json
from functools import cache, partial

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from normlab import compose
from normlab.errors import JobError, LostJobError
from normlab.folder import writing
from normlab.sweeps.jobs import CheckedJobs
from normlab.sweeps.search import OptunaSweeper

optuna = pytest.importorskip("optuna")


RANDOM, TPE, GRID = (getattr(optuna.samplers, f"{name}Sampler") for name in ("Random", "TPE", "Grid"))


SEARCH = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random"]


SPACE = ["optimizer.lr=tag(log,interval(0.01,0.1))", "model=net,custom_model", "data.batch_size=int(interval(8,16))"]


SMALL = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=1", "trainer.precision=64-true"]


class Stop(BaseException):
    """Stands for Ctrl-C: no failure of a job."""


def numbered(job_overrides) -> dict[int, list[str]]:
    """What jobs are composed from, by the number of their folder, which comes last."""
    lines = [[*overrides] for overrides in job_overrides]
    return {int(line.pop().removeprefix("hydra.sweep.subdir=")): line for line in lines}


class FakeLauncher:
    """Knows what each job reaches without training.

    broken: the jobs that fail; killed: those whose process is; stops: the job at which it stops.
    """

    def __init__(self, broken=(), stops=None, killed=()):
        self.broken, self.stops, self.killed, self.launched = {*broken, *killed}, stops, killed, []

    def launch(self, job_overrides, initial_job_idx):
        returned = []
        for number, overrides in numbered(job_overrides).items():
            if number == self.stops:
                raise Stop
            self.launched.append((number, overrides))
            job = JobReturn(status=JobStatus.FAILED if number in self.broken else JobStatus.COMPLETED)
            kind = LostJobError if number in self.killed else JobError
            job.return_value = kind(f"job {number}") if number in self.broken else None
            if number not in self.broken:
                (self.path / str(number)).mkdir(exist_ok=True)
                result = self.result(number, dict(line.split("=") for line in overrides))
                named = {"score_name": "val/acc", "score_mode": "max", "overrides": overrides, "metrics": {}}
                writing.write_result(self.path / str(number), {"status": "finished", **named, **result})
            returned.append(job)
        return returned

    def result(self, number, values):
        rate = float(values.get("optimizer.lr", 0))
        return {"score": rate + (values.get("model") == "net"), "seconds": 1.0, "parameters": 1}


class FakeQueue(FakeLauncher):
    """Serves a queue in a time of its own: job k takes lengths[k], and a later job 1. events: what began and ended.

    stops: the job at whose end it stops.
    """

    def __init__(self, lengths=(), **fake):
        super().__init__(**fake)
        self.lengths, self.events = lengths, []

    def serve(self, next_job, ended, most):
        now, running = 0, {}
        while True:
            while len(running) < most and (job := next_job()):
                self.events.append(f"begins {job.number}")
                running[job.number] = job, now + (self.lengths[job.number] if job.number < len(self.lengths) else 1)
            if not running:
                return
            job, now = running.pop(min(running, key=lambda number: (running[number][1], number)))
            (returned,) = self.launch([job.overrides], job.number)
            self.events.append(f"ends {job.number}")
            ended(job.number, returned)


@cache
def _composed(*config):
    return OmegaConf.to_container(compose(list(config)))


def search(
    path,
    launcher,
    typed=SPACE,
    *,
    sampler=RANDOM,
    pruner=("Nop", {}),
    objectives=("score",),
    n_trials=6,
    n_jobs=1,
    seed=0,
    params=None,
    config=(),
    confirm=None,
):
    """A sweep whose jobs are not run; gives its study. pruner: the start of its name, and its keys."""
    name, keys = f"{pruner[0]}Pruner", pruner[1]
    made = getattr(optuna.pruners, name)(**keys)
    sweeper = OptunaSweeper(partial(sampler), made, objectives, seed, n_trials, n_jobs, params, confirm)
    own = _composed(*config)
    hydras = {"sweep": {"dir": str(path)}, "sweeper": {"pruner": {"_target_": f"optuna.pruners.{name}", **keys}}}
    choices = {f"hydra/sweeper/{group}": "chosen" for group in ("sampler", "pruner")}
    sweeper.settings = OmegaConf.create(own | {"hydra": hydras | {"runtime": {"choices": choices}}})
    sweeper.loader, sweeper.engine = CheckedJobs([]), launcher
    launcher.path = path
    sweeper.sweep(typed)
    return study(path)


def study(path):
    """The study of a sweep; who wrote it a moment ago knows its tables."""
    file = f"sqlite:///{path / 'study.db'}"
    stored = optuna.storages.RDBStorage(file, skip_compatibility_check=True, skip_table_creation=True)
    return optuna.load_study(study_name="study", storage=stored)


def trials(found) -> list[tuple]:
    return [(trial.number, trial.params, trial.values, trial.state.name) for trial in found.trials]


def told(path) -> dict:
    return json.loads((path / "result.json").read_text())
