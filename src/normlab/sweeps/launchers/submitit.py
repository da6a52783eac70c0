"""`hydra/launcher=slurm`, `submitit_slurm` and `submitit_local`: submitit makes each job of a sweep a SLURM job."""

import signal
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn

from normlab.distributed.interrupts import interruptible
from normlab.distributed.slurm import batch_job, may_go_on
from normlab.folder.place import shown
from normlab.sweeps.launchers.beside import Beside, JobRunner, NumberedJob

if TYPE_CHECKING:  # submitit is an extra
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


class SubmititLauncher(Beside):
    """Submits all jobs as one array and waits for them. A job that the cluster ends has failed, and the others go on.

    cluster: slurm, or local, which starts all jobs at once on this machine. submitit_folder: where the jobs' output
    goes. max_num_timeout: how often a job that ran into its time limit, or was preempted, goes on by itself.
    parameters: what submitit takes for a job:
    https://github.com/facebookincubator/submitit/blob/main/docs/examples.md
    """

    def __init__(self, cluster: str, submitit_folder: str, max_num_timeout: int = 0, **parameters: Any):
        self.cluster, self.submitit_folder, self.max_num_timeout = cluster, submitit_folder, max_num_timeout
        self.parameters = {key if key in SHARED else f"{cluster}_{key}": value for key, value in parameters.items()}

    def _launch(self, jobs: list[NumberedJob]) -> list[JobReturn]:
        from submitit import AutoExecutor
        from submitit.core.utils import UncompletedJobError

        limits = {"slurm_max_num_timeout": self.max_num_timeout} if self.cluster == "slurm" else {}
        executor = AutoExecutor(self.submitit_folder, cluster=self.cluster, **limits)
        executor.update_parameters(**self.parameters)
        returned = []
        for job, submitted in zip(jobs, executor.map_array(_Resumed(self.runner), jobs), strict=True):
            try:
                returned.append(submitted.results()[0])
            except UncompletedJobError:
                where = f"{submitted.job_id} ended as {submitted.state}; see {shown(submitted.paths.stderr)}"
                returned.append(self.runner.lost(job, f"{self.cluster} job {where}"))
        return returned


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
