"""The processes of a run: how many there are to be, and what one of them can know of all."""

import os

import torch
from omegaconf import DictConfig
from torch import distributed

from normlab.errors import ConfigError
from normlab.norms import ranks


class PeerError(RuntimeError):
    """The cause lies in another process, which tells it."""


def count(config: DictConfig) -> int:
    """How many processes a configuration asks for. Raises ConfigError for devices that are not there."""
    devices, accelerator = config.trainer.devices, config.trainer.accelerator
    if devices == 1:
        return 1
    gpus = torch.cuda.device_count()
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        if devices == "auto":
            raise ConfigError("trainer.devices=auto counts GPUs: on the CPU say how many processes, trainer.devices=2")
        return devices
    if not gpus:
        raise ConfigError(f"trainer.devices={devices}: there is no GPU; trainer=ddp_cpu trains on the CPU")
    if devices == "auto":
        return gpus
    if devices > gpus:
        raise ConfigError(f"trainer.devices={devices}: asked for {devices} GPUs, found {gpus}")
    return devices


def threads(processes: int) -> int:
    """How many threads each of the processes takes: its part of the cores, or what OMP_NUM_THREADS says."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else max(1, torch.get_num_threads() // processes)


def everywhere(condition: bool, device: torch.device) -> bool:
    """Whether `condition` holds in every process; all of them must ask."""
    if not ranks.several():
        return condition
    flag = torch.tensor(int(condition), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MIN)
    return bool(flag)
