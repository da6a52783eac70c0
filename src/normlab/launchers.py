"""`hydra/launcher=joblib` and `hydra/launcher=ray`: the jobs of a sweep in processes beside this one."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import version
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab import folder
from normlab.errors import JobError

LEAVING = 30.0  # seconds that jobs may take to end on Ctrl-C


@dataclass(frozen=True)
class Job:
    """One job of a sweep, composed; it is called in another process, in the folder where the sweep was started."""

    number: int
    config: DictConfig
    context: HydraContext
    task: TaskFunction
    folder: str

    def __call__(self) -> JobReturn:
        os.chdir(self.folder)
        sys.modules["__main__"] = ModuleType("__main__")  # the worker's own, which processes of trainer=ddp would start
        setup_globals()
        version.setbase("1.3")
        return run_job(
            task_function=self.task,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.context,
        )

    def ended(self, how: str) -> JobReturn:
        """The return of a job that has none of its own, since its process is gone; its result.json says so too."""
        message = f"job {self.number}: {how}; the same command with the same name= goes on"
        path = Path(self.config.hydra.sweep.dir, str(self.config.hydra.sweep.subdir))
        if (result := folder.read_result(path)).get("status") == "running":
            folder.write_result(path, result | {"status": "failed", "error": how})
        returned = JobReturn(overrides=list(self.config.hydra.overrides.task), status=JobStatus.FAILED)
        returned.return_value = JobError(message)
        return returned


class _Beside(Launcher):
    """What both launchers have in common."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        setup_globals()
        sweep = Path(self.config.hydra.sweep.dir).absolute()
        sweep.mkdir(parents=True, exist_ok=True)
        jobs = (self._job(number, line, sweep) for number, line in enumerate(job_overrides, initial_job_idx))
        return self._launch(jobs, len(job_overrides))

    def _job(self, number: int, overrides: Sequence[str], sweep: Path) -> Job:
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.sweep.dir = str(sweep)
        return Job(number, config, self.context, self.task, os.getcwd())

    def _launch(self, jobs: Iterator[Job], total: int) -> list[JobReturn]:
        """What the jobs return, in their order."""
        raise NotImplementedError


class JoblibLauncher(_Beside):
    """Runs jobs side by side on the cores of this machine, by joblib's process pool (loky).

    n_jobs: how many at a time; -1: as many as there are cores, each with `trainer.devices` processes. The cores are
    shared out among them, unless OMP_NUM_THREADS says how many threads each has. A worker process does one job after
    another; when one is killed, its job has failed, and the others go on.
    """

    def __init__(self, n_jobs: int):
        self.n_jobs = n_jobs
        self.workers: list[_Worker] = []

    def _launch(self, jobs: Iterator[Job], total: int) -> list[JobReturn]:
        from joblib import cpu_count

        devices = self.config.trainer.devices
        processes = devices if isinstance(devices, int) else 1
        cores = cpu_count() // processes
        count = max(1, min(total, cores if self.n_jobs == -1 else self.n_jobs))
        threads = max(1, cores // count)
        self.workers += [_Worker(threads) for _ in range(len(self.workers), count)]
        free = self.workers[:count]
        running: dict[Future[JobReturn], tuple[_Worker, Job]] = {}
        returned: dict[int, JobReturn] = {}
        try:
            while len(returned) < total:
                for worker, job in zip(free, jobs, strict=False):
                    running[worker.start(job)] = worker, job
                done = wait(running, return_when=FIRST_COMPLETED).done
                free = []
                for future in done:
                    worker, job = running.pop(future)
                    returned[job.number] = worker.end(job, future)
                    free.append(worker)
        except BaseException:
            _stop(running)
            raise
        return [returned[number] for number in sorted(returned)]


class _Worker:
    """A process that does one job after another; a killed one is replaced."""

    def __init__(self, threads: int):
        self.threads = threads
        self._begin()

    def _begin(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        self.pool = ProcessPoolExecutor(1, env=environment, initializer=_start, initargs=(os.getpid(),))
        self.pid = self.pool.submit(os.getpid)

    def start(self, job: Job) -> "Future[JobReturn]":
        try:
            return self.pool.submit(job)
        except BrokenExecutor:  # it was killed after its last job
            self._begin()
            return self.pool.submit(job)

    def end(self, job: Job, future: "Future[JobReturn]") -> JobReturn:
        try:
            return future.result()
        except BrokenExecutor:
            self._begin()
            return job.ended("its process was killed, perhaps for want of memory")


def _start(launcher: int) -> None:
    """What a worker process does before its first job."""
    from normlab.orphans import die_with

    die_with(launcher)
    multiprocessing.set_start_method(None, force=True)  # loky's own cannot start the processes of trainer=ddp
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C reaches the launcher alone, which passes it on once


def _stop(running: "dict[Future[JobReturn], tuple[_Worker, Job]]") -> None:
    """Passes Ctrl-C on to the jobs, which note it in their folders."""
    for worker, _ in running.values():
        if worker.pid.done() and worker.pid.exception() is None:
            os.kill(worker.pid.result(), signal.SIGINT)
    wait(running, LEAVING)
    for worker, _ in running.values():
        worker.pool.shutdown(wait=False, kill_workers=True)


class RayLauncher(_Beside):
    """Runs jobs as tasks of a Ray cluster, which is started here if there is none.

    ray: `init`, what ray.init takes; `remote`, what each job needs: processors, GPUs. Other machines need this project
    and the working folder under the same paths. Ray runs a job again whose process was killed, up to three times.
    """

    def __init__(self, ray: DictConfig):
        self.settings: Any = OmegaConf.to_container(ray, resolve=True)

    def _launch(self, jobs: Iterator[Job], total: int) -> list[JobReturn]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which tells its makers of each start
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

        if not ray.is_initialized():
            ray.init(**self.settings["init"])
        run = ray.remote(**self.settings["remote"])(_call)
        running = {run.remote(job): job for job in jobs}
        returned = []
        try:
            for reference, job in running.items():
                try:
                    returned.append(ray.get(reference))
                except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                    returned.append(job.ended(f"Ray lost its process ({type(error).__name__})"))
        except BaseException:
            for reference in running:
                ray.cancel(reference)
            ray.wait(list(running), num_returns=total, timeout=LEAVING)
            raise
        return returned


def _call(job: Job) -> JobReturn:
    return job()


def register() -> None:
    """Makes the launchers known to Hydra, as `normlab.sweeper.register` does with the sweeper."""
    for launcher in (JoblibLauncher, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.normlab.{launcher.__name__}"] = launcher
