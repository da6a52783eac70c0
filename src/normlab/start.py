"""The common start of processes that torchrun or srun started, before they can reach each other through torch."""

import itertools
import json
import os
import socket
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

from normlab import joined
from normlab.errors import ConfigError, PeerError, WaitError
from normlab.world import environment


class Start:
    """Lets processes that torchrun or srun started begin together, or none of them.

    Use as a context around all that a process does: leaving it by an error before `ready` tells the others of it. Does
    nothing for a process that stands alone. Entering raises ConfigError where the first process's node has no address.
    """

    numbers = itertools.count()  # of the starts in this process

    def __init__(self, patience: timedelta):
        """`patience` is how long to wait until the others have built their parts."""
        self.patience = patience
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
            with suppress(WaitError):  # the error itself says more
                self._tell(error)

    def ready(self) -> None:
        """Waits for the others.

        Raises ConfigError where one of them is refused, PeerError where it failed, WaitError where it does not come.
        """
        if self.told:
            return
        for rank, said in enumerate(self._tell(None)):
            if said is not None:
                kind = ConfigError if said["refused"] else PeerError
                raise kind(f"process {rank}: {said['message']}")

    def _tell(self, error: Exception | None) -> list[dict[str, str] | None]:
        """Tells the others how far this process came, and hears it of each."""
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
            said = error and {"refused": isinstance(error, ConfigError), "message": str(error)}
            store.set(f"{start}/said/{rank}", json.dumps(said))
            heard = []
            for other in range(processes):
                awaited = f"rank {other}"
                heard.append(json.loads(store.get(f"{start}/said/{other}")))
            store.set(f"{start}/heard/{rank}", "")
            if rank == 0:  # the store may end with the first process
                for other in range(processes):
                    awaited = f"rank {other}"
                    store.wait([f"{start}/heard/{other}"])
        except DistError as failure:
            raise WaitError(
                f"rank {rank} of {processes} waited in vain for {awaited} to build the parts of the run ({failure}). "
                "What only takes longer needs more trainer.timeout"
            ) from failure
        return heard
