"""`hydra/launcher=ray`: the jobs of a sweep on a Ray cluster."""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from normlab.sweeps.launchers.beside import LEAVING, Beside, JobRunner
from normlab.sweeps.launchers.queue import NumberedJob


class RayLauncher(Beside):
    """Runs jobs as tasks of a Ray cluster; if there is none, one is started here.

    ray: `init` has the arguments of ray.init, and `remote` what each job needs, such as processors and GPUs. Other
    machines need this project and the working folder under the same paths. Ray runs a job whose process was killed
    again, up to three times.
    """

    def __init__(self, ray: DictConfig):
        self.settings: Any = OmegaConf.to_container(ray, resolve=True)

    def _prepare(self, most: int | None) -> int:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of each start
        import ray

        if not ray.is_initialized():
            ray.init(**self.settings["init"])
        self.run = ray.remote(**self.settings["remote"])(_run)
        self.shared = ray.put(self.runner)
        return most or sys.maxsize  # jobs for which the cluster has no room wait in its own queue

    def _start(self, jobs: Sequence[NumberedJob]) -> Iterator[Any]:
        for job in jobs:
            yield self.run.remote(self.shared, job)

    def _wait(self, running: dict[Any, NumberedJob]) -> Iterator[tuple[Any, JobReturn]]:
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

        for reference in ray.wait(list(running), num_returns=1)[0]:
            try:
                returned = ray.get(reference)
            except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                how = f"Ray lost its process ({type(error).__name__})"
                returned = self.runner.lost(running[reference], how)
            yield reference, returned

    def _stop(self, running: Collection[Any]) -> None:
        import ray

        for reference in running:
            ray.cancel(reference)
        ray.wait(list(running), num_returns=len(running), timeout=LEAVING)


def _run(runner: JobRunner, job: NumberedJob) -> JobReturn:
    return runner.run(job)
