"""Keeps a folder to one process at a time, on whatever machine it runs.

`.lock` is locked by the operating system: exactly, and until its process ends, however it ends. Whether another machine
sees that is up to a network file system. `.owner` is for those: its process touches it every few seconds. One that was
not touched for long is nobody's, and nor is one that was copied with its folder. Two processes on machines that do not
see each other's locks are kept apart unless both begin within the same moment, or one sleeps for longer than `SILENCE`.
"""

import errno
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from normlab.errors import ConfigError
from normlab.folder.place import failing, shown

BEAT = 5.0  # seconds between two touches of .owner
SILENCE = 60.0  # seconds without one, after which its process counts as gone
UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without locks answer
BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder. Raises ConfigError where one is in it.

    Where one on another machine may be in it, this first waits for a sign of it, at most `SILENCE` seconds.
    """
    file = FileLock(folder / ".lock")
    with failing(folder / ".lock"):
        exact = _acquire(file, folder)
    try:
        with _owning(folder / ".owner", exact):
            yield
    finally:
        file.release()


def _acquire(file: FileLock, folder: Path) -> bool:
    """Whether the file system knows locks. Raises ConfigError where somebody else has this one."""
    try:
        file.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"another process is writing to {shown(folder)}; wait for it, or choose another name="
        ) from error
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        return False
    return True


@contextmanager
def _owning(file: Path, exact: bool) -> Iterator[None]:
    _wait_for_sign(file, exact)
    with failing(file):
        file.unlink(missing_ok=True)
        with file.open("x") as opened:
            json.dump({"host": platform.node(), "boot": _boot(), "process": os.getpid(), "file": _number(file)}, opened)
    over = threading.Event()
    thread = threading.Thread(target=_touch, args=(file, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            file.unlink()


def _touch(file: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with suppress(OSError):
            os.utime(file)


def _wait_for_sign(file: Path, exact: bool) -> None:
    """Returns once nobody owns the file. Raises ConfigError where somebody touches it."""
    owner, first = _owner(file, exact), _touched(file)
    while owner is not None and _since(file) < SILENCE:
        if _touched(file) not in (first, None):
            raise ConfigError(
                f"process {owner.get('process')} on {owner.get('host')} is writing to {shown(file.parent)}; wait for "
                "it, or choose another name="
            )
        time.sleep(BEAT / 5)
        owner = _owner(file, exact)


def _owner(file: Path, exact: bool) -> dict[str, Any] | None:
    """What a process that may still be there has written; None for what a copy, or one that is gone, has left.

    exact: whether the lock tells that no process of this machine has the file.
    """
    try:
        owner = json.loads(file.read_text())
        copied, here = owner["file"] != _number(file), owner["boot"] == _boot()
        gone = here and (exact or not _is_alive(owner["process"]))
    except OSError:
        return None
    except (ValueError, LookupError, TypeError):  # it is just being written
        return {}
    return None if copied or gone else owner


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # it is another person's
        return True
    except OSError:
        return False
    return True


def _touched(file: Path) -> int | None:
    with suppress(OSError), file.open() as opened:  # network file systems look anew when a file is opened
        return os.fstat(opened.fileno()).st_mtime_ns
    return None


def _since(file: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    now = file.with_name(".lock")
    with suppress(OSError):
        now.touch()
        return now.stat().st_mtime - file.stat().st_mtime
    return SILENCE


def _number(file: Path) -> int:
    return file.stat().st_ino


def _boot() -> str:
    """This machine since it was started."""
    with suppress(OSError):
        return BOOT.read_text().strip()
    return platform.node()
