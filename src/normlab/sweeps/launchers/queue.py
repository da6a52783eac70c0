"""The queue of a sweep: a free worker takes the next job, and no job waits for the slowest of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


@dataclass(frozen=True)
class NumberedJob:
    """One job of a sweep. number: that of its folder. overrides: all that it is composed from."""

    number: int
    overrides: tuple[str, ...]


NextJob = Callable[[], NumberedJob | None]  # None: no job for now, or no further one
Ended = Callable[[int, JobReturn], object]  # the job's number, and what has become of it


@runtime_checkable
class Server(Protocol):
    """A launcher that serves a queue itself."""

    def serve(self, next_job: NextJob, ended: Ended, most: int | None) -> None: ...


def serve(engine: Launcher, next_job: NextJob, ended: Ended, most: int | None = None) -> None:
    """Runs jobs on a launcher, each in the folder of its number, until there are none left.

    next_job: gives the next job whenever a worker is free. After None it is asked again when a job has ended; None
    while no job runs is the end. ended: is called as each job ends. Both are called in this thread alone. most: how
    many jobs may run at a time; None: as many as the launcher has workers for.

    A launcher that only knows Hydra's `launch` gets the jobs in batches of up to `most`. Hydra's own runs one job after
    the other, and so each is a batch.
    """

    def placed() -> NumberedJob | None:
        job = next_job()
        return job and NumberedJob(job.number, (*job.overrides, f"hydra.sweep.subdir={job.number}"))

    if isinstance(engine, Server):
        engine.serve(placed, ended, most)
        return
    size = 1 if is_basic(engine) else most
    while batch := list(islice(iter(placed, None), size)):
        numbers = [job.number for job in batch]
        returned = engine.launch([job.overrides for job in batch], initial_job_idx=min(numbers))
        for number, job in zip(numbers, returned, strict=True):
            ended(number, job)


def is_basic(engine: Launcher) -> bool:
    """Whether a launcher is Hydra's own, by its name: Hydra loads its plugins anew, with classes of their own."""
    return any(kind.__name__ == "BasicLauncher" for kind in type(engine).__mro__)
