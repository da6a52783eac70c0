"""Errors that the end of a run tells apart."""

import difflib
import errno
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Packages that know nothing of a person's classes: what they raise on being called tells of the values they were given.
LIBRARIES = ("torch", "torchvision", "torchmetrics", "timm", "lightning")


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)  # a disk that is full, broken, or for reading alone


class ConfigError(ValueError):
    """A run refused because of what was typed. The message names the key, what was found and what to do.

    messages: the single refusals, where it says several.
    """

    messages: Sequence[str] = ()


class Problems:
    """Gathers refusals that do not depend on each other, to say them all at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Goes on after what is done in it, where that is refused."""
        try:
            yield
        except ConfigError as error:
            self.messages += error.messages or [str(error)]

    def check(self) -> None:
        """Raises ConfigError with what was gathered, if anything was, a line each."""
        several = [message for number, message in enumerate(self.messages) if message not in self.messages[:number]]
        if not several:
            return
        lines = several if len(several) == 1 else [f"{len(several)} problems:", *(f"  {line}" for line in several)]
        error = ConfigError("\n".join(lines))
        error.messages = several
        raise error


class DamagedError(ConfigError):
    """A file of a run is cut off, empty, or of another program or a later version."""


class ChangedError(ConfigError):
    """The training data of a run is no longer what it was begun on; the run itself is as good as before."""


class WriteError(Exception):
    """A file of a run folder cannot be written, as on a full disk. The message names the file, why, and what to do."""


class WaitError(RuntimeError):
    """A process waited in vain for others. The message names the place, who did not come, and where that one is."""


class LostError(WaitError):
    """One of the others gives no answer at all: it was stopped, or its machine is gone."""


class PeerError(RuntimeError):
    """The cause lies in another process, which tells it."""


class JobError(Exception):
    """A job of a sweep failed or was refused; it has told so itself, and this is what its sweeper sees."""


class LostJobError(JobError):
    """A job's process is gone; the same command runs it again."""


class SweepError(Exception):
    """Jobs of a sweep failed, each of which was told. The message says how many, and where they are."""


def is_of_disk(error: BaseException) -> bool:
    """Whether a file could not be written because of its disk, whoever wrote it."""
    return isinstance(error, WriteError) or (isinstance(error, OSError) and error.errno in DISK)


def show(value: Any) -> str:
    """A value as it stands in yaml."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """The end of a refusal: up to `most` of the known names nearest to `name`, if any is near."""
    near = difflib.get_close_matches(name, list(known), n=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def was_refused(error: BaseException) -> bool:
    """Whether a `raise` of normlab's ended it, which says what cannot work, and not a mistake somewhere in the code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parent) and (last.line or "").startswith("raise ")


def is_library(part: Any) -> bool:
    """Whether a class or function is one of a known library."""
    return getattr(part, "__module__", "").partition(".")[0] in LIBRARIES


@contextmanager
def unmasked() -> Iterator[None]:
    """Raises KeyboardInterrupt in place of an error that a library raised on its way out of one.

    omegaconf does, where an interrupt meets it in the middle of a config.yaml. A file that could not be written while a
    run was being interrupted is said all the same.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, WriteError) and _hides_an_interrupt(error):
            raise KeyboardInterrupt from error
        raise


def _hides_an_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
