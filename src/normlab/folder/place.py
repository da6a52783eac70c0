"""The run folder: where it lies, what it holds, and whether a command may use it.

config.yaml  data.json  fingerprint.json  metrics.csv  result.json  environment.json  train.log
checkpoints/{best,last}.ckpt
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from normlab.distributed import world
from normlab.errors import ConfigError, WriteError

ROOT = Path("outputs")

NAME = "choose another name="

LONGEST = 255  # bytes of a folder's name, on the file systems in use


def resolve(name: object, action: str = "fit", ckpt: str | None = None) -> Path:
    """The run folder: `outputs/<name>`, or the folder of the checkpoint `ckpt`, or else a new one.

    Under SLURM a new folder is named after the job, and so the same in all its processes. Raises ConfigError for a
    name that is no path under `outputs`, for an action that needs a run and is given none, and under torchrun without
    a name.
    """
    if name is not None:
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", str(name)) or ".." in str(name).split("/"):
            raise ConfigError(f"name={name}: expected letters, digits and . _ - + with / between folders")
        return ROOT / str(name)
    if ckpt not in (None, "best", "last"):
        return Path(ckpt).parent.parent
    if action in ("fit", "sweep", "lr_find", "stats"):
        if (given := world.run_name()) is not None:
            return ROOT / given
        now = datetime.now()
        return ROOT / now.strftime("%Y-%m-%d") / f"{now:%H-%M-%S}-{uuid.uuid4().hex[:6]}"
    raise ConfigError(f"action={action} needs a run: name=<run>, or ckpt=<run folder>/checkpoints/best.ckpt")


@contextmanager
def failing(path: Path) -> Iterator[None]:
    """Turns the error of a file system into WriteError, which says what to do."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{shown(path)} cannot be written: {error.strerror or error}; what was saved before is whole, and the same "
            "command goes on from it once that is mended"
        ) from error


def check_place(path: Path, remedy: str = NAME) -> None:
    """Raises ConfigError where a folder cannot be made or written in. remedy: what to do then."""
    if any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise ConfigError(f"{str(path)[:40]}… is too long: a folder's name has at most {LONGEST} bytes")
    there = next(place for place in (path, *path.parents) if os.path.lexists(place) or place == place.parent)
    if not there.is_dir():
        raise ConfigError(f"{shown(path)} cannot be made: {shown(there)} is no folder; {remedy}")
    effective = os.access in os.supports_effective_ids
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        raise ConfigError(f"{shown(path)} cannot be written: {shown(there)} is read-only; {remedy}")


def shown(path: Path) -> Path:
    """A path as a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
