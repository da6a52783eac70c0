"""The processes of a run: how many there are to be, and what one of them can know of all."""

import itertools
import json
import os
import socket
from datetime import timedelta
from types import TracebackType

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from omegaconf import DictConfig
from torch import distributed

from normlab import joined
from normlab.errors import ConfigError, PeerError

PATIENCE = timedelta(minutes=30)  # until all processes have built their parts; torch's own for a collective


def count(config: DictConfig) -> int:
    """How many processes a configuration asks for. Raises ConfigError for devices or processes that are not there."""
    joined.check(config)
    here = joined.found()
    if here is not None:
        return _on_this_node(here.local, config.trainer.accelerator) * here.nodes
    return _on_this_node(config.trainer.devices, config.trainer.accelerator)


def nodes() -> int:
    """How many machines take part."""
    here = joined.found()
    return 1 if here is None else here.nodes


def _on_this_node(devices: int | str, accelerator: str) -> int:
    if devices == 1:
        return 1
    gpus = torch.cuda.device_count()
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        if isinstance(devices, str):
            raise ConfigError("trainer.devices=auto counts GPUs: on the CPU say how many processes, trainer.devices=2")
        return devices
    if not gpus:
        raise ConfigError(f"trainer.devices={devices}: there is no GPU; trainer=ddp_cpu trains on the CPU")
    if isinstance(devices, str):
        return gpus
    if devices > gpus:
        raise ConfigError(f"trainer.devices={devices}: asked for {devices} GPUs, found {gpus}")
    return devices


def environment() -> ClusterEnvironment:
    """Where Lightning learns of this process's place.

    Named instead of left to Lightning, which takes any process in a SLURM job for one of srun's.
    """
    here = joined.found()
    if here is None:
        return LightningEnvironment()
    if here.starter == "torchrun":
        return TorchElasticEnvironment()
    os.environ["SLURM_NTASKS_PER_NODE"] = str(here.local)  # srun -n does not set it, and Lightning insists
    return SLURMEnvironment(auto_requeue=False)


class Start:
    """Lets processes that torchrun or srun started begin together, or none of them.

    Use as a context around all that a process does: leaving it by an error before `ready` tells the others of it. Does
    nothing for a process that stands alone. Entering raises ConfigError where the first process's node has no address.
    """

    numbers = itertools.count()  # of the starts in this process

    def __init__(self) -> None:
        self.told = joined.found() is None

    def __enter__(self) -> "Start":
        if not self.told:
            address = environment().main_address
            try:
                socket.getaddrinfo(address, None)
            except OSError as error:  # torch would try for half an hour
                raise ConfigError(
                    f"node {address} has no address on {socket.gethostname()}: make the names of the nodes known to "
                    "each other (DNS or /etc/hosts), or set MASTER_ADDR"
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self.told:
            self._tell(error)

    def ready(self) -> None:
        """Waits for the others. Raises ConfigError where one of them is refused, PeerError where it failed."""
        if self.told:
            return
        for rank, said in enumerate(self._tell(None)):
            if said is not None:
                kind = ConfigError if said["refused"] else PeerError
                raise kind(f"process {rank}: {said['message']}")

    def _tell(self, error: Exception | None) -> list[dict[str, str] | None]:
        """Tells the others how far this process came, and hears it of each."""
        self.told = True
        place = environment()
        os.environ.update(MASTER_ADDR=place.main_address, MASTER_PORT=str(place.main_port))
        store, rank, processes = next(
            distributed.rendezvous("env://", place.global_rank(), place.world_size(), timeout=PATIENCE)
        )
        store = distributed.PrefixStore(f"normlab/{next(self.numbers)}", store)
        said = error and {"refused": isinstance(error, ConfigError), "message": str(error)}
        store.set(f"said/{rank}", json.dumps(said))
        heard = [json.loads(store.get(f"said/{other}")) for other in range(processes)]
        store.set(f"heard/{rank}", "")
        if rank == 0:  # the store may end with the first process
            store.wait([f"heard/{other}" for other in range(processes)])
        return heard


def everywhere(condition: bool, device: torch.device) -> bool:
    """Whether `condition` holds in every process; all of them must ask."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return condition
    flag = torch.tensor(int(condition), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MIN)
    return bool(flag)
