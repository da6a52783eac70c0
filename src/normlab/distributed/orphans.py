"""Processes that do not outlive the one that started them."""

import os
import signal


def die_with(parent: int) -> None:
    """Lets this process be killed with the one that started it, on Linux: the same command resumes its run.

    A process without a parent would go on to write into the folder, which a second start takes for its own.
    """
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # pyright: ignore

    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # torch has set SIGINT, which a process that waits does not hear
    if os.getppid() != parent:  # it was killed just before
        os.kill(os.getpid(), signal.SIGKILL)
