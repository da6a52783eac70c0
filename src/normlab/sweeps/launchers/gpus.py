"""Shares the GPUs among the jobs of a sweep."""

import os
from collections.abc import Sequence
from pathlib import Path

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and the one of Linux within Windows


def visible() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    if os.name != "nt" and not any(Path(driver).exists() for driver in DRIVERS):
        return []  # torch knows it exactly, but takes seconds to import
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if named is None else (name.strip() for name in named.split(","))
    return list(names)[:count]


def shared_out(gpus: Sequence[str], devices: int | str) -> list[list[str]]:
    """The GPUs in groups, each with as many as a job has processes (`trainer.devices`); what remains is in no group.

    Where a job takes all GPUs there is one group with all of them; so too where it asks for more than there are, which
    the job itself refuses.
    """
    size = len(gpus) if devices == "auto" else min(int(devices), len(gpus))
    return [list(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)] if gpus else []
