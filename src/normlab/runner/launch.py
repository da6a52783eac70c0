"""Starts several processes on one machine from inside the run, each with the configuration that was composed."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from normlab.distributed.devices import timeout
from normlab.distributed.interrupts import ENDING
from normlab.distributed.signs import PERIOD, SILENCE, load
from normlab.errors import LostError, PeerError, WaitError
from normlab.runner.actions import Outcome, saved_progress
from normlab.runner.launched import Place, process, work

log = logging.getLogger(__name__)

FAILING = SILENCE  # seconds that processes may take to end, and to save why, once one of them has failed
LEAVING = 30.0  # seconds that processes may take to end when all are done


class KilledError(ChildProcessError):
    """A process was ended by a signal."""


class Launcher:
    """Runs an action in several processes and returns the outcome of the first.

    When a process of a fit is killed, all are started again, up to `trainer.max_restarts` times, and go on from the
    newest checkpoint. A process that no longer answers, as when it was stopped, is killed; so is one that stays
    longer than `trainer.timeout` after another is done. `progress` is how far the first process came. Raises what a
    process raised, KilledError where one was killed, and KeyboardInterrupt on Ctrl-C.
    """

    def __init__(self, config: DictConfig, folder: Path, checkpoint: Path | None, processes: int):
        self.config, self.folder, self.checkpoint, self.processes = config, folder, checkpoint, processes
        self.progress: dict[str, Any] = {}

    def run(self) -> Outcome:
        most = self.config.trainer.max_restarts if self.config.action == "fit" else 0
        for restart in range(most + 1):
            try:
                return self._attempt()
            except (KilledError, LostError) as error:
                if restart == most:
                    raise
                log.warning(f"{error}; restart {restart + 1} of {most}")
        raise AssertionError

    def _attempt(self) -> Outcome:
        with TemporaryDirectory(prefix="normlab-") as name:
            scratch = Path(name)
            # The processes meet through this store, which belongs to the launcher and so outlives each of them.
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            context = multiprocessing.get_context("spawn")
            arguments = (work, self.config, self.folder, self.checkpoint, scratch)
            places = [Place(rank, self.processes, store.port) for rank in range(self.processes)]
            crew = [context.Process(target=process, args=(place, *arguments)) for place in places]
            try:
                _start(crew)
                self._watch(crew, scratch)
            except KeyboardInterrupt:
                _interrupt(crew, scratch, timeout(self.config).total_seconds())
                raise
            finally:
                _kill(crew)
                self.progress = load(scratch / "progress") or saved_progress(self.folder / "checkpoints")
            return load(scratch / "outcome0")

    def _watch(self, crew: Sequence[SpawnProcess], scratch: Path) -> None:
        """Waits until all processes have ended. Raises what ended one that failed."""
        patience = timeout(self.config).total_seconds()
        while alive := [each for each in crew if each.exitcode is None]:
            wait([each.sentinel for each in alive], PERIOD)
            if any(each.exitcode for each in crew):
                raise self._cause(crew, scratch)
            _kill(_overdue(crew, scratch, patience))
        if any(each.exitcode for each in crew):
            raise self._cause(crew, scratch)

    def _cause(self, crew: Sequence[SpawnProcess], scratch: Path) -> Exception:
        """Why a run ended: a process's own error, a signal that ended one, or a wait in vain for another process."""
        if not _killed(crew):  # after a kill, what the others report is only a consequence
            _await(crew, FAILING)
        errors = [load(file) for file in sorted(scratch.glob("error*"))]
        errors.sort(key=lambda timed: (isinstance(timed[1], PeerError | WaitError), timed[0]))
        if errors and not isinstance(errors[0][1], PeerError | WaitError):
            return errors[0][1]
        if killed := _killed(crew):
            return KilledError(f"{self._named(killed[0])} was ended by {_signal(crew[killed[0]])}")
        if aborted := [rank for rank, each in enumerate(crew) if each.exitcode == -signal.SIGABRT]:
            return self._aborted(aborted[0], crew, scratch)
        if errors:
            return self._completed(errors[0][1], crew, scratch)
        failed = next(rank for rank, each in enumerate(crew) if each.exitcode)
        return RuntimeError(f"{self._named(failed)} ended with exit code {crew[failed].exitcode}")

    def _aborted(self, rank: int, crew: Sequence[SpawnProcess], scratch: Path) -> Exception:
        """The error of a process that ended itself; where it saved none, NCCL has most likely ended it."""
        message = (
            f"{self._named(rank)} was ended by SIGABRT, as NCCL ends one that has waited in vain for trainer.timeout, "
            f"and C++ one whose assertion failed, which it prints; {_last_places(crew, scratch)}"
        )
        return LostError(message) if _silent(crew, scratch) else WaitError(message)

    def _completed(self, error: Exception, crew: Sequence[SpawnProcess], scratch: Path) -> Exception:
        """The error of a wait in vain: LostError where it was for a process that gives no sign of life."""
        silent = _silent(crew, scratch)
        if isinstance(error, LostError | PeerError) or not silent:
            return error
        listed = " and ".join(f"rank {rank}" for rank in silent)
        return LostError(f"{error}; {listed} gives no sign of life")

    def _named(self, rank: int) -> str:
        return f"process {rank} of {self.processes}, counted from 0,"


def _killed(crew: Sequence[SpawnProcess]) -> list[int]:
    """The processes that a signal ended, without those that ended themselves by SIGABRT."""
    return [n for n, each in enumerate(crew) if (each.exitcode or 0) < 0 and each.exitcode != -signal.SIGABRT]


def _signal(ended: SpawnProcess) -> str:
    assert ended.exitcode is not None
    return signal.Signals(-ended.exitcode).name


def _silent(crew: Sequence[SpawnProcess], scratch: Path) -> list[int]:
    """The processes that exist and give no sign of life, such as stopped ones."""
    now = time.time()
    alive = [rank for rank, each in enumerate(crew) if each.exitcode is None]
    signs = {rank: load(scratch / f"sign{rank}") for rank in alive}
    return [rank for rank, sign in signs.items() if sign is None or sign.time < now - SILENCE]


def _last_places(crew: Sequence[SpawnProcess], scratch: Path) -> str:
    """Where each process was when it gave its last sign."""
    signs = {rank: load(scratch / f"sign{rank}") for rank in range(len(crew))}
    silent = _silent(crew, scratch)
    return "; ".join(
        f"rank {rank} has not begun"
        if sign is None
        else f"rank {rank} {'was stopped' if rank in silent else 'was last'} {sign.where}"
        for rank, sign in signs.items()
    )


def _overdue(crew: Sequence[SpawnProcess], scratch: Path, patience: float) -> list[SpawnProcess]:
    """The processes that stay longer than `patience` seconds after another is done, or LEAVING when all are."""
    done = {rank: end for rank in range(len(crew)) if (end := load(scratch / f"done{rank}")) is not None}
    allowed = min(patience, LEAVING) if len(done) == len(crew) else patience
    if not done or time.time() < min(done.values()) + allowed:
        return []
    return [each for rank, each in enumerate(crew) if rank not in done] or list(crew)


def _start(crew: Sequence[SpawnProcess]) -> None:
    """Starts processes with signals blocked until they have set their handlers (see launched.py)."""
    held = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING) if held else ()
    try:
        for each in crew:
            each.start()
    finally:
        if held:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(crew: Sequence[SpawnProcess], scratch: Path, patience: float) -> None:
    """Passes Ctrl-C on to the processes; from a terminal it has reached them already.

    They end their batch and save the run, for which they get `patience` seconds; a second Ctrl-C ends the wait.
    """
    _kill([each for rank, each in enumerate(crew) if load(scratch / f"sign{rank}") is None])  # they have not begun
    for each in crew:
        if each.is_alive() and each.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGINT)
    _await(crew, patience)


def _await(crew: Sequence[SpawnProcess], seconds: float) -> None:
    """Gives processes time to end."""
    deadline = time.monotonic() + seconds
    for each in crew:
        if each.is_alive():
            each.join(max(0.0, deadline - time.monotonic()))


def _kill(crew: Sequence[SpawnProcess]) -> None:
    """Kills processes, since one that waits in C++ for a device hears no other signal."""
    alive = [each for each in crew if each.is_alive()]
    for each in alive:
        each.kill()
    _await(alive, LEAVING)  # not for ever: a process inside the kernel cannot be killed
