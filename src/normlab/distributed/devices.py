"""The processes of a run: how many there will be, and what each of them knows about all."""

import os
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.accelerators.cuda import CUDAAccelerator
from omegaconf import DictConfig

from normlab.distributed import world
from normlab.errors import ConfigError


def count(config: DictConfig) -> int:
    """How many processes a configuration asks for. Raises ConfigError for devices or processes that are not there."""
    world.check(config)
    here = world.current()
    devices = config.trainer.devices if here is None else here.local
    return _on_this_node(devices, config.trainer) * nodes()


def timeout(config: DictConfig) -> timedelta:
    """How long a process waits for the others."""
    return timedelta(seconds=config.trainer.timeout)


def nodes() -> int:
    """How many machines the run is on."""
    here = world.current()
    return 1 if here is None else here.nodes


def _on_this_node(devices: int | str, trainer: DictConfig) -> int:
    if devices == 1:
        return 1
    accelerator = trainer.accelerator
    gpus = torch.cuda.device_count()
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        if isinstance(devices, str):
            raise ConfigError("trainer.devices=auto counts GPUs: on the CPU say how many processes, trainer.devices=2")
        return devices
    if not gpus:
        on_cpu = "trainer.accelerator=cpu trainer.devices=2"
        raise ConfigError(f"trainer.devices={devices}: there is no GPU; {on_cpu} trains on the CPU")
    if isinstance(devices, str):
        return gpus
    if devices > gpus and not has_own_gpu(trainer):
        raise ConfigError(f"trainer.devices={devices}: asked for {devices} GPUs, found {gpus}")
    return devices


def is_cpu(trainer: DictConfig) -> bool:
    """Whether training is on the processor."""
    return trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())


def has_own_gpu(trainer: DictConfig) -> bool:
    """Whether this process is one of several on its node and sees a single GPU, as under srun --gpus-per-task=1.

    Whether another process has the same GPU is only known once they meet (see rendezvous.py).
    """
    here = world.current()
    several_here = here is not None and here.local > 1
    return several_here and trainer.accelerator in ("auto", "gpu") and torch.cuda.device_count() == 1


class OwnGpu(CUDAAccelerator):
    """Tells Lightning, which takes the local rank for the GPU's number, that every process's own GPU is number 0."""

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return list(range(devices))

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device("cuda", 0) for _ in devices]


def environment() -> ClusterEnvironment:
    """What tells Lightning this process's rank and how many there are.

    Lightning's own choice takes any process in a SLURM job for one that srun has started.
    """
    here = world.current()
    if here is None:
        return LightningEnvironment()
    if here.starter == "torchrun":
        return TorchElasticEnvironment()
    os.environ["SLURM_NTASKS_PER_NODE"] = str(here.local)  # srun -n does not set it, and Lightning insists
    return SLURMEnvironment(auto_requeue=False)


def threads(processes: int) -> int:
    """How many threads each of the processes takes: its share of the cores, or what OMP_NUM_THREADS says."""
    return torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else max(1, torch.get_num_threads() // processes)
