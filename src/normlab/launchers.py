"""`hydra/launcher=joblib` and `hydra/launcher=ray`: the jobs of a sweep in processes beside this one."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import version
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab import folder
from normlab.errors import JobError

LEAVING = 30.0  # seconds that jobs may take to end on Ctrl-C

_sweep: "Sweep"  # in a worker process, its sweep


@dataclass(frozen=True)
class Job:
    """One job of a sweep. overrides: all that composes it."""

    number: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """What the jobs of a sweep have in common. Other processes compose them, which takes longer than a short training.

    settings: the sweep's own configuration. singletons: Hydra's, which a new process does not have. folder: where the
    sweep was started.
    """

    settings: DictConfig
    singletons: dict[Any, Any]
    context: HydraContext
    task: TaskFunction
    folder: str

    def run(self, job: Job) -> JobReturn:
        """Runs a job in this process, which does nothing else."""
        os.chdir(self.folder)
        sys.modules["__main__"] = ModuleType("__main__")  # the worker's own, which processes of trainer=ddp would start
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
        returned.cfg = returned.hydra_cfg = None  # long on the way, and read by nobody
        return returned

    def lost(self, job: Job, how: str) -> JobReturn:
        """The return of a job that has none of its own, since its process is gone; its result.json says so too."""
        place = self._compose(job).hydra.sweep
        path = Path(place.dir, str(place.subdir))
        if (result := folder.read_result(path)).get("status") == "running":
            folder.write_result(path, result | {"status": "failed", "error": how})
        returned = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
        returned.return_value = JobError(f"job {job.number}: {how}; the same command with the same name= goes on")
        return returned

    def _compose(self, job: Job) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.settings, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.sweep.dir = str(Path(self.folder, config.hydra.sweep.dir))
        return config


class _Beside(Launcher):
    """What both launchers have in common."""

    sweep: Sweep

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        setup_globals()
        self.sweep = Sweep(config, Singleton.get_state(), hydra_context, task_function, os.getcwd())

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        Path(self.sweep.settings.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        return self._launch([Job(number, (*line,)) for number, line in enumerate(job_overrides, initial_job_idx)])

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
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

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
        from joblib import cpu_count

        devices = self.sweep.settings.trainer.devices
        processes = devices if isinstance(devices, int) else 1
        cores = cpu_count() // processes
        count = max(1, min(len(jobs), cores if self.n_jobs == -1 else self.n_jobs))
        threads = max(1, cores // count)
        self.workers += [_Worker(threads, self.sweep) for _ in range(len(self.workers), count)]
        free = self.workers[:count]
        running: dict[Future[JobReturn], tuple[_Worker, Job]] = {}
        returned: dict[int, JobReturn] = {}
        waiting = iter(jobs)
        try:
            while len(returned) < len(jobs):
                for worker, job in zip(free, waiting, strict=False):
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

    def __init__(self, threads: int, sweep: Sweep):
        self.threads, self.sweep = threads, sweep
        self._begin()

    def _begin(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        self.pool = ProcessPoolExecutor(1, env=environment, initializer=_start, initargs=(os.getpid(), self.sweep))
        self.pid = self.pool.submit(os.getpid)

    def start(self, job: Job) -> "Future[JobReturn]":
        try:
            return self.pool.submit(_run, job)
        except BrokenExecutor:  # it was killed after its last job
            self._begin()
            return self.pool.submit(_run, job)

    def end(self, job: Job, future: "Future[JobReturn]") -> JobReturn:
        try:
            return future.result()
        except BrokenExecutor:
            self._begin()
            return self.sweep.lost(job, "its process was killed, perhaps for want of memory")


def _start(launcher: int, sweep: Sweep) -> None:
    """What a worker process does before its first job."""
    from normlab.orphans import die_with

    global _sweep  # a worker process has one, and unpickles it once
    _sweep = sweep
    die_with(launcher)
    multiprocessing.set_start_method(None, force=True)  # loky's own cannot start the processes of trainer=ddp
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C reaches the launcher alone, which passes it on once


def _run(job: Job) -> JobReturn:
    return _sweep.run(job)


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

    def _launch(self, jobs: list[Job]) -> list[JobReturn]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which tells its makers of each start
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

        if not ray.is_initialized():
            ray.init(**self.settings["init"])
        run = ray.remote(**self.settings["remote"])(Sweep.run)
        sweep = ray.put(self.sweep)
        running = {run.remote(sweep, job): job for job in jobs}
        returned = []
        try:
            for reference, job in running.items():
                try:
                    returned.append(ray.get(reference))
                except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                    returned.append(self.sweep.lost(job, f"Ray lost its process ({type(error).__name__})"))
        except BaseException:
            for reference in running:
                ray.cancel(reference)
            ray.wait(list(running), num_returns=len(running), timeout=LEAVING)
            raise
        return returned


def register() -> None:
    """Makes the launchers known to Hydra, as `normlab.sweeper.register` does with the sweeper."""
    for launcher in (JoblibLauncher, RayLauncher):
        Plugins.instance().class_name_to_class[f"hydra_plugins.normlab.{launcher.__name__}"] = launcher
