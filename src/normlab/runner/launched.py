"""The work of each process that launch.py has started."""

import logging
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from normlab.distributed import peers
from normlab.distributed.devices import threads
from normlab.distributed.interrupts import ASKING, ENDING, Interrupts
from normlab.distributed.orphans import die_with
from normlab.distributed.signs import Signs, save
from normlab.folder.checkpoints import load_weights
from normlab.logs import closing_wandb, logging_to, no_logging, quiet_lightning
from normlab.logs.streams import keep_going
from normlab.runner.actions import Outcome, act, progress
from normlab.runner.allocator import set_allocator
from normlab.runner.build import Context, Parts, build
from normlab.runner.starting import load_init


@dataclass(frozen=True)
class Place:
    """One of several processes on this machine. port: that of the store through which they meet."""

    rank: int
    processes: int
    port: int

    def join(self) -> None:
        """Sets the environment variables by which torchrun tells torch and Lightning."""
        os.environ |= {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(self.processes),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "GROUP_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RUN_ID": "normlab",
            "TORCHELASTIC_RESTART_COUNT": "0",  # each restart has a new store here, and so nothing to count
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        }


def process(place: Place, work: Callable[..., Any], *arguments: Any) -> None:
    """Calls `work`, whose last argument is the folder in which the launcher looks for outcomes and errors.

    A process that failed ends at once, since the handlers of an orderly exit may wait for the others, such as
    Lightning's that destroys an NCCL process group.
    """
    launcher = parent_process()
    assert launcher is not None
    assert launcher.pid is not None
    die_with(launcher.pid)
    keep_going()
    for number in ASKING:
        signal.signal(number, _left_to_launcher(os.getpid()))
    signal.signal(signal.SIGINT, Interrupts(once=True).handle)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    place.join()
    torch.set_num_threads(threads(place.processes))
    scratch = arguments[-1]
    try:
        outcome = work(*arguments)
        save(scratch / f"outcome{place.rank}", outcome)
        save(scratch / f"done{place.rank}", time.time())
    except Exception as error:
        save_error(scratch, place.rank, error)
        _leave(1)
    except (KeyboardInterrupt, SystemExit):  # Lightning answers Ctrl-C by an exit
        _leave(130)


def work(config: DictConfig, folder: Path, checkpoint: Path | None, scratch: Path) -> Outcome:
    """What one process does of an action."""
    rank, interrupts = int(os.environ["RANK"]), Interrupts(once=True)
    signal.signal(signal.SIGINT, interrupts.handle)
    set_allocator(config.allocator)
    parts: Parts | None = None
    try:
        with (
            logging_to(folder / "train.log") if rank == 0 else no_logging(),
            closing_wandb(),
            Signs(scratch / f"sign{rank}") as signs,
        ):
            quiet_lightning()
            logging.getLogger("normlab.data").setLevel(logging.WARNING)  # the launcher has logged this already
            parts = build(config, folder, Context(rank=rank, callbacks=[_Early(scratch)], interrupts=interrupts))
            signs.trainer = parts.trainer
            if checkpoint is not None:
                load_weights(parts.task, checkpoint)
            load_init(config, parts.task.network, folder, {}, says=False)
            return act(config.action, parts, folder)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if rank == 0 and parts is not None:
            save(scratch / "progress", progress(parts))


class _Early(Callback):
    """Saves an error as soon as it is raised: after a failed assertion on a GPU, cleaning up may end the process.

    An error that only says that others did not come is left to Peers, which adds who and where.
    """

    def __init__(self, scratch: Path):
        self.scratch = scratch

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception) and not peers.in_vain(exception):
            save_error(self.scratch, trainer.global_rank, exception)


def save_error(scratch: Path, rank: int, error: Exception) -> None:
    """Saves an error for the launcher, with the traceback of its process as a note.

    For an error that cannot be pickled only its message is saved.
    """
    trace = "".join(traceback.format_exception(error))
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"in process {rank}:\n{trace}")
    save(scratch / f"error{rank}", (time.time(), sent))


def _left_to_launcher(own: int) -> Callable[[int, FrameType | None], None]:
    """A handler that does nothing in the process `own`, since the launcher gets the signal too and ends its processes.

    Workers of a DataLoader, which are forked from this process, end as they would without this handler.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            os._exit(128 + number)

    return handler


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
