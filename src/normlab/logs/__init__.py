"""Messages: the console shows normlab's own and every warning; train.log holds these and Lightning's too."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from typing_extensions import override

from normlab.logs.streams import printable

QUIET = "NORMLAB_QUIET"  # in the environment, which the processes of a job inherit

console = Console(highlight=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints through rich, so that lines appear above a live progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith("normlab")

    def emit(self, record: logging.LogRecord) -> None:
        console.print(printable(record.getMessage().strip()), markup=False)


class LogHandler(logging.FileHandler):
    """Writes to train.log. What a full or broken disk does not take is lost, since no run should end of that."""

    def __init__(self, file: Path):
        super().__init__(file, encoding="utf-8", errors="backslashreplace", delay=True)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # the file cannot be opened
            self.handleError(record)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    @override
    def close(self) -> None:
        with suppress(OSError):  # what the disk did not take before it does not take now
            super().close()


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Sends messages to `file`, and to the console unless it is to be quiet; afterwards puts everything back."""
    with _handlers(LogHandler(file), *([] if is_quiet() else [ConsoleHandler()])):
        yield


@contextmanager
def on_console() -> Iterator[None]:
    """Sends the messages of a sweep, which belong to no single run, to the console."""
    with _handlers(ConsoleHandler()):
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps a job of a sweep and the processes that it starts off the console: the sweep reports what they do."""
    os.environ[QUIET] = "1"
    try:
        yield
    finally:
        del os.environ[QUIET]


def is_quiet() -> bool:
    return QUIET in os.environ


@contextmanager
def no_logging() -> Iterator[None]:
    """Drops all messages: the first of several processes writes them for all, and errors are raised anyway."""
    with _handlers(logging.NullHandler()):
        yield


@contextmanager
def closing_wandb() -> Iterator[None]:
    """Ends a Weights & Biases run with ours; the next job of a sweep would otherwise go on writing into it."""
    try:
        yield
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish()


@contextmanager
def _handlers(*handlers: logging.Handler) -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("normlab")
    before = root.handlers[:], root.level
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    ours.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            handler.close()
        root.handlers[:], level = before
        root.setLevel(level)


def quiet_lightning() -> None:
    """Takes Lightning's own handlers away: each of its lines would appear twice. Call after importing it."""
    # Lightning 2.6 with torch 2.15, 2026-11: its own use of a deprecated torch class, nothing a user can change
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # The meter of each stage has already summed over all processes.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # One process on a machine that has SLURM is no mistake.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # nonfinite=skip returns no loss for a batch that it leaves out, and reports that itself.
    warnings.filterwarnings("ignore", message=".*`training_step` returned `None`.*")
    # `Resumable` lets the loader go on within an epoch, in its own way.
    warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
    # What freeze= names is meant to be in eval mode.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
