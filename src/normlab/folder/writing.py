"""Writes the files of a run folder, each whole or not at all, so that they outlast a power cut."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from normlab.folder.files import HEADER, load_config
from normlab.folder.identity import ONCE
from normlab.folder.place import failing

BLOCK = 1 << 24  # bytes that are copied at once

# The beginning of config.yaml, by which `python train.py -cp <folder> -cn config name=<new>` replays the run.
REPLAY = """\
# Replay: python train.py --config-path {path} --config-name config name={name}-replay
defaults:
  - _self_
  - override hydra/job_logging: none
hydra:
  run:
    dir: ${{normlab.folder:${{name}},${{action}},${{ckpt}}}}
  output_subdir: null
"""


def write_config(path: Path, config: DictConfig) -> None:
    kept = config.copy()
    for key in ONCE:
        if OmegaConf.select(kept, key) is not None:
            OmegaConf.update(kept, key, None)
    body = OmegaConf.to_yaml(kept, resolve=True)
    write_text(path / "config.yaml", REPLAY.format(path=path.absolute(), name=path.name) + body)


def has_own_header(path: Path) -> bool:
    """Whether a run's config.yaml tells Hydra just what normlab wrote there, so that a replay does nothing else."""
    written: Any = OmegaConf.to_container(OmegaConf.create(REPLAY.format(path="", name="")))
    config: Any = OmegaConf.to_container(load_config(path / "config.yaml"))
    same = all(config.get(key) == written[key] for key in HEADER)
    return same and not (path / "hydra").exists()  # Hydra would look for its own options there first


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Replaces result.json in one step; NaN and infinities become null, which every JSON reader takes."""
    write_text(path / "result.json", json.dumps(_finite(result), indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a file whole or not at all; bytes of file names that are no UTF-8 are written as escapes."""
    write_with(file, lambda part: part.write(text.encode("utf-8", "backslashreplace")))


def write_with(file: Path, write: Callable[[BinaryIO], object], sync: bool = True) -> None:
    """Replaces a file by what `write` writes to an open one beside it; whatever happens, one of the two is there whole.

    sync: what was written is on the disk when this returns; without it, a power cut may leave a damaged file. Raises
    WriteError where the disk is full or broken; the earlier file is then as it was.
    """
    with failing(file), replacing(file, sync) as part:
        write(part)


@contextmanager
def replacing(file: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """As `write_with`, for what is written bit by bit: an open file, which takes the place of `file` at the end.

    Where an error ends it, the earlier file is as it was. What is written to the open file raises OSError.
    """
    part = file.with_name(f".{file.name}.part")
    with failing(file):
        opened = part.open("wb")
    try:
        try:
            yield opened
            if sync:
                with failing(file):
                    _sync(opened)
        finally:
            with failing(file):
                opened.close()
        with failing(file):
            os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            part.unlink()  # on a full disk result.json then finds room to say so
        raise
    if sync:
        sync_folder(file.parent)


def append_line(file: Path, line: str, sync: bool = True) -> None:
    """Adds a line to a file. Raises WriteError; the file may then hold a part of the line. sync: as in `write_with`."""
    with failing(file), file.open("ab") as lines:
        lines.write(line.encode())
        if sync:
            _sync(lines)


def copy_whole(source: Path, target: Path, sync: bool = True) -> None:
    """Writes a file's content once more. sync: as in `write_with`.

    The blocks are read and written, since file systems let a copy that they make share its blocks with the original,
    as a second name for the same file would, and a damaged block would then take both.
    """
    with source.open("rb") as opened:
        write_with(target, lambda part: shutil.copyfileobj(opened, part, BLOCK), sync)


def sync_files(*files: Path) -> None:
    """Brings files of one folder onto the disk, those of them that are there, with their names."""
    for file in files:
        with failing(file), suppress(FileNotFoundError), file.open("rb+") as opened:
            _sync(opened)
    sync_folder(files[0].parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a power cut, on file systems that can."""
    with failing(folder):
        try:
            opened = os.open(folder, os.O_RDONLY)
        except PermissionError:  # Windows opens no folders, and has no need of it
            return
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync files alone
                raise
        finally:
            os.close(opened)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are missing. Raises WriteError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with failing(each):
            each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def remove(*files: Path) -> None:
    """Removes files, as far as they are there. Raises WriteError."""
    for file in files:
        with failing(file):
            file.unlink(missing_ok=True)


def _sync(opened: IO[bytes]) -> None:
    opened.flush()
    os.fsync(opened.fileno())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
