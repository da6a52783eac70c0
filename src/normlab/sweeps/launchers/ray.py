"""`hydra/launcher=ray`: the jobs of a sweep on a Ray cluster."""

import os
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from normlab.sweeps.launchers.beside import LEAVING, Beside, JobRunner, NumberedJob


class RayLauncher(Beside):
    """Runs jobs as tasks of a Ray cluster; if there is none, one is started here.

    ray: `init` has the arguments of ray.init, and `remote` what each job needs, such as processors and GPUs. Other
    machines need this project and the working folder under the same paths. Ray runs a job whose process was killed
    again, up to three times.
    """

    def __init__(self, ray: DictConfig):
        self.settings: Any = OmegaConf.to_container(ray, resolve=True)

    def _launch(self, jobs: list[NumberedJob]) -> list[JobReturn]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of each start
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError

        if not ray.is_initialized():
            ray.init(**self.settings["init"])
        run = ray.remote(**self.settings["remote"])(JobRunner.run)
        runner = ray.put(self.runner)
        running = {run.remote(runner, job): job for job in jobs}
        returned = []
        try:
            for reference, job in running.items():
                try:
                    returned.append(ray.get(reference))
                except (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError) as error:
                    returned.append(self.runner.lost(job, f"Ray lost its process ({type(error).__name__})"))
        except BaseException:
            for reference in running:
                ray.cancel(reference)
            ray.wait(list(running), num_returns=len(running), timeout=LEAVING)
            raise
        return returned
