"""Processes that do not outlive the one that started them."""

import os
import signal


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent is killed (Linux).

    Without its parent it would go on writing into the run folder while the same command resumes the run there.
    """
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # pyright: ignore

    _prctl_pr_set_pdeathsig(signal.SIGKILL)  # torch has set SIGINT, which a waiting process does not hear
    if os.getppid() != parent:  # the parent was killed just before
        os.kill(os.getpid(), signal.SIGKILL)
