"""`hydra/launcher=slurm`, `submitit_slurm` and `submitit_local`: submitit makes each job of a sweep a SLURM job."""

import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn

from normlab.distributed.interrupts import interruptible
from normlab.distributed.slurm import batch_job, may_go_on
from normlab.folder.place import shown
from normlab.sweeps.launchers.beside import Beside, JobRunner
from normlab.sweeps.launchers.queue import NumberedJob

if TYPE_CHECKING:  # submitit is an extra
    from submitit import Job
    from submitit.helpers import DelayedSubmission

# Parameters that all clusters have; the others begin with the name of their cluster.
SHARED = {
    "name",
    "timeout_min",
    "nodes",
    "tasks_per_node",
    "cpus_per_task",
    "gpus_per_node",
    "mem_gb",
    "stderr_to_stdout",
}


LOOK = 1.0  # seconds between two looks for jobs that have ended


class SubmititLauncher(Beside):
    """Submits the jobs that there are as one array, and later ones as each ends.

    A job that the cluster ends has failed, and the others go on.

    cluster: slurm, or local, which starts all jobs at once on this machine. submitit_folder: where the jobs' output
    goes. max_num_timeout: how often a job that ran into its time limit, or was preempted, goes on by itself.
    parameters: what submitit takes for a job:
    https://github.com/facebookincubator/submitit/blob/main/docs/examples.md
    """

    def __init__(self, cluster: str, submitit_folder: str, max_num_timeout: int = 0, **parameters: Any):
        self.cluster, self.submitit_folder, self.max_num_timeout = cluster, submitit_folder, max_num_timeout
        self.parameters = {key if key in SHARED else f"{cluster}_{key}": value for key, value in parameters.items()}

    def _prepare(self, most: int | None) -> int:
        from submitit import AutoExecutor

        limits = {"slurm_max_num_timeout": self.max_num_timeout} if self.cluster == "slurm" else {}
        self.executor = AutoExecutor(self.submitit_folder, cluster=self.cluster, **limits)
        self.executor.update_parameters(**self.parameters)
        return most or sys.maxsize  # the cluster has a queue of its own

    def _start(self, jobs: Sequence[NumberedJob]) -> "Iterator[Job[JobReturn]]":
        return iter(self.executor.map_array(_Resumed(self.runner), jobs) if jobs else [])

    def _wait(self, running: "dict[Job[JobReturn], NumberedJob]") -> "Iterator[tuple[Job[JobReturn], JobReturn]]":
        from submitit.core.utils import UncompletedJobError
        from submitit.helpers import as_completed

        submitted = next(as_completed([*running], poll_frequency=LOOK))
        try:
            returned = submitted.results()[0]
        except UncompletedJobError:
            ended = f"{self.cluster} job {submitted.job_id} ended without a result, in state {submitted.state}"
            returned = self.runner.lost(running[submitted], f"{ended}; see {shown(submitted.paths.stderr)}")
        yield submitted, returned


class _Resumed:
    """submitit calls this with a job, and calls it again after a time limit or a preemption: the run then goes on.

    submitit puts a job back into the queue at a signal of its own, and leaves SIGTERM unheard. Here both let the run be
    saved first, and then submitit does its part, unless the job was cancelled.
    """

    def __init__(self, runner: JobRunner):
        self.runner = runner

    def __call__(self, job: NumberedJob) -> JobReturn:
        from submitit import JobEnvironment

        warning = JobEnvironment._usr_sig()
        requeue: Any = signal.getsignal(warning)
        with interruptible(taken=(warning, signal.SIGTERM)) as interrupts:
            try:
                return self.runner.run(job)
            except KeyboardInterrupt:
                job_number = batch_job() if interrupts.asked == signal.SIGTERM else None
                if interrupts.asked == warning or (job_number is not None and may_go_on(job_number)):
                    requeue(warning, None)  # which exits
                raise

    def checkpoint(self, job: NumberedJob) -> "DelayedSubmission":
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
