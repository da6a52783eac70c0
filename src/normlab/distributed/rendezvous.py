"""The common start of processes that torchrun or srun started, before they can reach each other through torch."""

import itertools
import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

from omegaconf import DictConfig

from normlab.distributed import world
from normlab.distributed.devices import environment, has_own_gpu
from normlab.errors import ConfigError, PeerError, WaitError


class Start:
    """Lets processes that torchrun or srun started begin together, or none of them.

    Use it as a context around all that a process does. An error that leaves it before `ready` is told to the others.
    For a process that stands alone it does nothing. Entering raises ConfigError where the first process's node has no
    address.
    """

    numbers = itertools.count()  # numbers the starts in this process

    def __init__(self, patience: timedelta):
        """patience: how long to wait until the others have built their parts."""
        self.patience = patience
        self.told = world.current() is None  # a process that stands alone has nobody to tell

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
            with suppress(WaitError):  # the error itself says more
                self._tell({"refused": isinstance(error, ConfigError), "message": str(error)})

    def ready(self, config: DictConfig) -> None:
        """Waits for the others.

        Raises ConfigError where one of them is refused or has the same GPU as another, PeerError where it failed,
        WaitError where it does not come.
        """
        if self.told:
            return
        heard = self._tell({"gpu": _own_gpu() if has_own_gpu(config.trainer) else None})
        for rank, said in enumerate(heard):
            if "message" in said:
                kind = ConfigError if said["refused"] else PeerError
                raise kind(f"process {rank}: {said['message']}")
        check_gpus([said["gpu"] for said in heard])

    def _tell(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """Tells the others how far this process came, and returns what each of them said, by rank."""
        from torch.distributed import DistError  # torch may be built without it
        from torch.distributed.rendezvous import rendezvous

        self.told = True
        place = environment()
        os.environ.update(MASTER_ADDR=place.main_address, MASTER_PORT=str(place.main_port))
        rank, processes = place.global_rank(), place.world_size()
        awaited = "the others"
        try:
            store, *_ = next(rendezvous("env://", rank, processes, timeout=self.patience))
            start = f"normlab/start/{next(self.numbers)}"
            store.set(f"{start}/said/{rank}", json.dumps(own))
            heard = []
            for other in range(processes):
                awaited = f"rank {other}"
                heard.append(json.loads(store.get(f"{start}/said/{other}")))
            store.set(f"{start}/heard/{rank}", "")
            if rank == 0:  # the store may end with the first process, so it waits until all have read
                for other in range(processes):
                    awaited = f"rank {other}"
                    store.wait([f"{start}/heard/{other}"])
        except DistError as failure:
            raise WaitError(
                f"rank {rank} of {processes} waited in vain for {awaited} to build the parts of the run ({failure}). "
                "If it only takes longer, raise trainer.timeout"
            ) from failure
        return heard


def check_gpus(gpus: Sequence[str | None]) -> None:
    """Raises ConfigError where two processes share a GPU, which NCCL would refuse too, but much later.

    gpus: the GPU of each rank; None for a process that sees several.
    """
    for rank, gpu in enumerate(gpus):
        if gpu is not None and gpu in gpus[:rank]:
            raise ConfigError(
                f"ranks {gpus.index(gpu)} and {rank} see the same GPU and no other: give each process its own "
                "(srun --gpus-per-task=1), start fewer, or set trainer.accelerator=cpu"
            )


def _own_gpu() -> str:
    """The id of this process's GPU, which no other GPU has."""
    import torch  # only here: this module is imported before torch is needed

    return str(torch.cuda.get_device_properties(0).uuid)
