"""Puts a SLURM job back into the queue that was asked to end before its work was done."""

import logging
import os
import signal
import subprocess

from normlab.distributed.world import INTERACTIVE

log = logging.getLogger(__name__)

# Signals that SLURM sends ahead of a time limit or a preemption; which one is up to sbatch's --signal.
WARNING = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
PATIENCE = 60.0  # seconds that SLURM may take to answer


def batch_job() -> str | None:
    """The number of the batch job that this process belongs to; None outside of SLURM, and where a person types."""
    return os.environ.get("SLURM_JOB_ID") if os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE else None


def may_go_on(job: str) -> bool:
    """Whether a job that was asked to end still runs, or is at its time limit; False for one that is cancelled.

    A cancelled job is `COMPLETING` until its processes have left.
    """
    state = _scontrol("show", "job", "--oneliner", job)
    return "JobState=RUNNING" in state or "Reason=TimeLimit" in state


def requeue(job: str) -> bool:
    """Puts a job that may go on back into the queue, and returns whether that was done.

    Where SLURM preempts with REQUEUE it does so by itself, unless the job ends in its time of grace.
    """
    if not may_go_on(job):
        return False
    problem = _scontrol("requeue", job)
    if problem:
        log.warning(f"SLURM job {job} was not put back into the queue: {problem}")
    return not problem


def _scontrol(*arguments: str) -> str:
    """What SLURM answers, which is nothing where it has done what it was told."""
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout + done.stderr).strip()
