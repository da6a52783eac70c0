"""Runs the jobs of a sweep in other processes; the launchers joblib, ray and submitit have this in common."""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import version
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from normlab.errors import LostJobError
from normlab.folder import writing
from normlab.folder.files import known_result
from normlab.sweeps.launchers.queue import Ended, NextJob, NumberedJob

LEAVING = 30.0  # seconds that jobs may take to end after Ctrl-C


@dataclass(frozen=True)
class JobRunner:
    """Runs the jobs of a sweep, by what they have in common. The process that runs a job also composes it.

    settings: the sweep's own configuration. singletons: Hydra's, which a new process does not have. folder: where the
    sweep was started.
    """

    settings: DictConfig
    singletons: dict[Any, Any]
    context: HydraContext
    task: TaskFunction
    folder: str

    def run(self, job: NumberedJob) -> JobReturn:
        """Runs a job in this process, which does nothing else."""
        os.chdir(self.folder)
        sys.modules["__main__"] = ModuleType("__main__")  # processes of trainer=ddp start the main module
        Singleton.set_state(self.singletons)
        setup_globals()
        version.setbase("1.3")
        returned = run_job(
            task_function=self.task,
            config=self._compose(job),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.context,
        )
        returned.cfg = returned.hydra_cfg = None  # nobody reads them, and sending them takes long
        return returned

    def lost(self, job: NumberedJob, how: str) -> JobReturn:
        """The return of a job whose process is gone; its result.json then says so too. how: what happened to it."""
        place = self._compose(job).hydra.sweep
        path = Path(place.dir, str(place.subdir))
        if (result := known_result(path)).get("status") == "running":
            writing.write_result(path, result | {"status": "failed", "error": how})
        returned = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
        returned.return_value = LostJobError(f"job {job.number}: {how}; the same command with the same name= goes on")
        return returned

    def _compose(self, job: NumberedJob) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.settings, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.sweep.dir = str(Path(self.folder, config.hydra.sweep.dir))
        return config


class Beside(Launcher):
    """A launcher that calls `JobRunner.run` for each job in another process, and serves a queue."""

    runner: JobRunner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        setup_globals()
        self.runner = JobRunner(config, Singleton.get_state(), hydra_context, task_function, os.getcwd())

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        Path(self.runner.settings.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        jobs = [NumberedJob(number, (*line,)) for number, line in enumerate(job_overrides, initial_job_idx)]
        returned: dict[int, JobReturn] = {}
        self.serve(partial(next, iter(jobs), None), returned.__setitem__, len(jobs))
        return [returned[job.number] for job in jobs]

    def serve(self, next_job: NextJob, ended: Ended, most: int | None) -> None:
        """See `queue.serve`. Ctrl-C, or an error that `ended` raises, reaches the jobs that run."""

        def take(count: int) -> list[NumberedJob]:
            return list(islice(iter(next_job, None), count))

        jobs = take(1)
        if not jobs:
            return  # before anything is imported or started
        room = self._prepare(most)
        jobs += take(room - 1)
        running: dict[Any, NumberedJob] = {}
        try:
            while jobs or running:
                for job, handle in zip(jobs, self._start(jobs), strict=True):
                    running[handle] = job
                for handle, returned in self._wait(running):
                    ended(running.pop(handle).number, returned)
                jobs = take(room - len(running))
        except BaseException:
            self._stop(running)
            raise

    def _prepare(self, most: int | None) -> int:
        """Makes ready for up to `most` jobs at a time, and returns how many are started at a time."""
        raise NotImplementedError

    def _start(self, jobs: Sequence[NumberedJob]) -> Iterator[Any]:
        """Starts jobs, and gives what each is known by while it runs."""
        raise NotImplementedError

    def _wait(self, running: dict[Any, NumberedJob]) -> Iterator[tuple[Any, JobReturn]]:
        """Waits until a job has ended, and gives what it was known by and what it returned."""
        raise NotImplementedError

    def _stop(self, running: Collection[Any]) -> None:
        """Passes Ctrl-C on to the jobs that run, so that they record it in their folders. A cluster's jobs go on."""
