"""Several processes on one machine, started from inside the run with the configuration that it has composed."""

import logging
import os
import pickle
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from normlab.actions import Outcome, act, progress, saved_progress
from normlab.allocator import set_allocator
from normlab.build import Parts, build
from normlab.errors import LostError, PeerError, WaitError
from normlab.logs import closing_wandb, logging_to, no_logging, quiet_lightning
from normlab.orphans import die_with
from normlab.world import threads, timeout

log = logging.getLogger(__name__)

GRACE = 1.0  # seconds that a failed process stays, so that one that was killed is noticed before those it left behind
LEAVING = 30.0  # seconds that processes may take to end when all are done
# which torch's launcher takes over
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class KilledError(ChildProcessError):
    """A process was ended by a signal."""


class Launcher:
    """Runs an action in several processes and gives the outcome of the first.

    Of a fit, a process that is killed is started again with its peers, up to `trainer.max_restarts` times, and goes on
    after the last finished epoch. One that no longer answers, as when it was stopped, is killed; so is one that stays
    longer than `trainer.timeout` after another is done. `progress` is how far the first process came. Raises what a
    process raised, KilledError where one was killed, KeyboardInterrupt on Ctrl-C.
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
        with TemporaryDirectory(prefix="normlab-") as scratch:
            settings = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=self.processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="127.0.0.1:0",
                local_addr="127.0.0.1",
                max_restarts=0,  # it would restart after an error too, which comes again
                logs_specs=DefaultLogsSpecs(log_dir=scratch),
            )
            work = (self.config, self.folder, self.checkpoint, Path(scratch))
            try:
                with _own_signals(), _none_stays(Path(scratch), timeout(self.config).total_seconds()):
                    return elastic_launch(settings, _process)(*work)[0]
            except ChildFailedError as error:
                raise self._cause(error, Path(scratch)) from None
            finally:
                saved = self.folder / "checkpoints" / "last.ckpt"
                self.progress = _load(Path(scratch, "progress")) or saved_progress(saved)

    def _cause(self, error: ChildFailedError, scratch: Path) -> BaseException:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            return KilledError(f"process {rank} of {self.processes}, counted from 0, was ended by {name}")
        errors = filter(None, map(_load, scratch.glob("error*")))
        causes = sorted(errors, key=lambda found: (isinstance(found[1], PeerError | WaitError), found[0]))
        if causes:
            return causes[0][1]
        return RuntimeError(f"process {rank} of {self.processes} ended with exit code {failure.exitcode}")


def _process(config: DictConfig, folder: Path, checkpoint: Path | None, scratch: Path) -> Outcome:
    """What each process does."""
    launcher = parent_process()
    assert launcher is not None
    assert launcher.pid is not None
    die_with(launcher.pid)
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _save(scratch / f"process{rank}", (os.getpid(), None))
    torch.set_num_threads(threads(processes))
    set_allocator(config.allocator)
    parts: Parts | None = None
    try:
        with logging_to(folder / "train.log") if rank == 0 else no_logging(), closing_wandb():
            quiet_lightning()
            logging.getLogger("normlab.data").setLevel(logging.WARNING)  # the process that started this one has told
            parts = build(config, folder, rank=rank)
            outcome = act(config.action, parts, checkpoint, folder)
        _save(scratch / f"process{rank}", (os.getpid(), time.time()))
        return outcome
    except Exception as error:
        _save(scratch / f"error{rank}", (time.time(), _portable(error, rank)))
        time.sleep(GRACE)
        raise SystemExit(1) from None  # without the tracebacks of the machinery in between
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher sends a second one on Ctrl-C
        if rank == 0 and parts is not None:
            _save(scratch / "progress", progress(parts))


@contextmanager
def _none_stays(scratch: Path, patience: float) -> Iterator[None]:
    """Kills processes that stay `patience` seconds after another is done, or LEAVING when all are; and frees ourselves.

    torch's launcher would wait for them, and for ever for one that was killed while it heard that all are done. Raises
    KilledError then.
    """
    over, freed, thread = threading.Event(), threading.Event(), threading.get_ident()

    def watch() -> None:
        while not over.wait(1):
            processes = [_load(file) for file in scratch.glob("process*")]
            ends = [end for _, end in processes if end is not None]
            allowed = min(patience, LEAVING) if len(ends) == len(processes) else patience
            if not ends or time.time() < min(ends) + allowed:
                continue
            for pid in [pid for pid, end in processes if end is None] or [pid for pid, _ in processes]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not over.wait(GRACE + 1) and thread == threading.main_thread().ident:  # which alone hears signals
                freed.set()
                signal.pthread_kill(thread, signal.SIGTERM)  # which torch's launcher makes an exception of
            return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    except SignalException:
        if not freed.is_set():
            raise
        raise KilledError("a process was killed while it left") from None
    finally:
        over.set()
        watching.join()


def _portable(error: Exception, rank: int) -> Exception:
    """The error with the traceback of its process as a note; of one that cannot be sent only what it says."""
    told = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in process {rank}:\n{told}")
    return error


def _save(file: Path, value: Any) -> None:
    part = file.with_name(f".{file.name}")
    part.write_bytes(pickle.dumps(value))
    part.rename(file)


def _load(file: Path) -> Any:
    return pickle.loads(file.read_bytes()) if file.is_file() else None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back the signal handlers that torch's launcher leaves behind, and gives Ctrl-C its usual form."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if main else {}
    try:
        yield
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
