"""`hydra/launcher=joblib`: the jobs of a sweep side by side on the cores of this machine."""

import atexit
import gc
import multiprocessing
import os
import signal
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import suppress

from hydra.core.utils import JobReturn

from normlab.sweeps.launchers.beside import LEAVING, Beside, JobRunner
from normlab.sweeps.launchers.gpus import shared_out, visible
from normlab.sweeps.launchers.queue import NumberedJob


class JoblibLauncher(Beside):
    """Runs jobs side by side on the cores of this machine, with joblib's process pool (loky).

    n_jobs: how many at a time; -1: as many as the cores are enough for, or the GPUs where jobs train on these, when
    each job has `trainer.devices` processes. The cores are shared out among the jobs, unless OMP_NUM_THREADS says how
    many threads each has. Each job sees GPUs of its own; with more jobs than GPUs some see the same. A worker process
    does one job after another. When one is killed, its job has failed, and the others go on.
    """

    def __init__(self, n_jobs: int):
        self.n_jobs = n_jobs
        self.threads, self.gpus = 1, list[list[str]]()
        self.made = 0  # how many workers there are
        self.free: list[_Worker] = []
        self.busy: dict[Future[JobReturn], _Worker] = {}
        atexit.register(self.free.clear)  # loky complains of a worker that is there when modules are taken down

    def _prepare(self, most: int | None) -> int:
        from joblib import cpu_count

        trainer = self.runner.settings.trainer
        self.gpus = [] if trainer.accelerator == "cpu" else shared_out(visible(), trainer.devices)
        processes = (
            trainer.devices if isinstance(trainer.devices, int) else max(1, len(self.gpus[0]) if self.gpus else 1)
        )
        cores = max(1, cpu_count() // processes)
        workers = min(cores, len(self.gpus) or cores) if self.n_jobs == -1 else self.n_jobs
        room = workers if most is None else max(1, min(most, workers))
        self.threads = max(1, cores // room)
        return room

    def _start(self, jobs: Sequence[NumberedJob]) -> "Iterator[Future[JobReturn]]":
        for job in jobs:
            worker = self.free.pop(0) if self.free else self._worker()
            future = worker.start(job)
            self.busy[future] = worker
            yield future

    def _worker(self) -> "_Worker":
        gpus = self.gpus[self.made % len(self.gpus)] if self.gpus else None
        self.made += 1
        return _Worker(self.threads, self.runner, gpus)

    def _wait(self, running: "dict[Future[JobReturn], NumberedJob]") -> "Iterator[tuple[Future[JobReturn], JobReturn]]":
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            worker = self.busy.pop(future)
            returned = worker.end(running[future], future)
            self.free.append(worker)
            yield future, returned

    def _stop(self, running: "Collection[Future[JobReturn]]") -> None:
        for future in running:
            self.busy[future].interrupt()
        wait(running, LEAVING)
        for future in running:
            self.busy[future].kill()


class _Worker:
    """A process that does one job after another; a killed one is replaced.

    gpus: the GPUs that it sees; None: all that this process sees.
    """

    def __init__(self, threads: int, runner: JobRunner, gpus: list[str] | None = None):
        self.threads, self.runner, self.gpus = threads, runner, gpus
        self._begin()

    def _begin(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        self.pool = ProcessPoolExecutor(1, env=environment, initializer=_start, initargs=(os.getpid(),))
        self.pid = self.pool.submit(os.getpid)

    def start(self, job: NumberedJob) -> "Future[JobReturn]":
        try:
            self.pid = self.pool.submit(os.getpid)  # loky may have replaced the process
        except BrokenExecutor:  # the process was killed after its last job
            self._begin()
        return self.pool.submit(self.runner.run, job)

    def end(self, job: NumberedJob, future: "Future[JobReturn]") -> JobReturn:
        try:
            return future.result()
        except BrokenExecutor:
            self._begin()
            return self.runner.lost(job, "its process was killed, perhaps for want of memory")

    def interrupt(self) -> None:
        """Passes Ctrl-C on to its job."""
        if self.pid.done() and self.pid.exception() is None:
            with suppress(ProcessLookupError):  # it has just been killed
                os.kill(self.pid.result(), signal.SIGINT)
        else:  # its job has not begun
            self.kill()

    def kill(self) -> None:
        self.pool.shutdown(wait=False, kill_workers=True)


def _start(launcher: int) -> None:
    """Prepares a worker process for its jobs."""
    from normlab.distributed.orphans import die_with

    die_with(launcher)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # then Ctrl-C reaches the launcher alone, which passes it on once
    multiprocessing.set_start_method(None, force=True)  # loky's own cannot start the processes of trainer=ddp
    import lightning.pytorch  # noqa: F401  # every job needs it, and importing takes seconds

    gc.freeze()  # loky collects garbage every second, and would take 0.2 s to look through what was imported
    atexit.register(gc.unfreeze)  # triton's modules complain at the end of a frozen process
