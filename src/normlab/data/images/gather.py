"""Reads a list of image files once, into memory or, where they will be streamed, to learn their facts."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from normlab.data.common.fingerprint import digest
from normlab.data.images.decoding import ImageError
from normlab.data.images.streamed import Files, Reader, cores, workers_here
from normlab.errors import ConfigError

log = logging.getLogger(__name__)

CHUNK = 64  # images that a thread decodes before it hands them over
SAY_EVERY = 5.0  # seconds
MEMORY_SHARE = 4  # images are held in memory where they take at most one part in this many of it
FORMAT = 2  # the version of what the cache holds


@dataclass(frozen=True)
class Handling:
    """How image files are read."""

    size: int | None = None
    channels: int | None = None
    in_memory: bool | Literal["auto"] = "auto"
    workers: int | Literal["auto"] = "auto"
    corrupt: Literal["stop", "skip"] = "stop"
    processes: int = 1  # how many train on this machine


@dataclass
class Survey:
    """Facts about the files: which can be read, what is wrong with the others, and what images they hold."""

    readable: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)  # of the contents of the readable files
    errors: dict[int, str] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    sums: Tensor = field(default_factory=lambda: torch.empty(0))  # sums of pixels and squares, int64 (files, 2, C)


def gather(root: Path, names: Sequence[str], how: Handling) -> tuple[Tensor | Files, Survey]:
    """The images (N, C, H, W) uint8 in memory or as files, and the facts about these; unreadable ones are left out.

    Raises ConfigError where no image can be read, or one cannot and `corrupt` is stop, and for images of different
    sizes.
    """
    reader = Reader(root, names, how.size, how.channels)
    in_memory = _fits(reader, how) if how.in_memory == "auto" else how.in_memory
    if in_memory:
        images, survey = _decode(reader, how)
    else:
        images, survey = None, _cached_survey(reader, how)
    _report(reader, survey, how)
    if images is None:
        reader = Reader(root, [names[place] for place in survey.readable], how.size, survey.shape[0])
        images = Files(reader, survey.shape, survey.sums, workers_here(how.workers, how.processes))
    return images, survey


def channel_sums(x: Tensor) -> Tensor:
    """Sums of pixels (..., C, H, W) and of their squares in each channel, exact, int64 (2, C)."""
    pixels = x.numpy()  # numpy keeps to one thread
    axes = tuple(axis for axis in range(x.ndim) if axis != x.ndim - 3)
    squares = np.square(pixels, dtype=np.int32)
    return torch.from_numpy(np.stack([pixels.sum(axes, dtype=np.int64), squares.sum(axes, dtype=np.int64)]))


def _decode(reader: Reader, how: Handling) -> tuple[Tensor, Survey]:
    """All images in one tensor."""

    def look(place: int) -> tuple[Tensor, str]:
        x, stored = reader.look(place)
        return x, digest(stored)

    survey = Survey()
    images = torch.empty(0)
    for place, (x, content) in _each(reader, how, survey, look):
        if not survey.readable:
            images = torch.empty(len(reader), *x.shape, dtype=torch.uint8)
        elif len(x) > images.shape[1]:  # the first image in colour after grey ones
            images = images.expand(-1, 3, -1, -1).contiguous()
        _check_size(reader, survey, images.shape[2:], place, x.shape[1:])
        images[len(survey.readable)] = x  # a grey image is repeated in all channels
        survey.readable.append(place)
        survey.digests.append(content)
    survey.shape = tuple(images.shape[1:])
    return images[: len(survey.readable)], survey


def _survey(reader: Reader, how: Handling) -> Survey:
    """Decodes every file and keeps no image."""

    def look(place: int) -> tuple[tuple[int, ...], Tensor, str]:
        x, stored = reader.look(place)
        return tuple(x.shape), channel_sums(x), digest(stored)

    survey, sums = Survey(), []
    for place, (shape, of_channels, content) in _each(reader, how, survey, look):
        survey.shape = survey.shape or shape
        _check_size(reader, survey, survey.shape[1:], place, shape[1:])
        survey.shape = max(survey.shape, shape)  # in colour if any image is
        survey.readable.append(place)
        survey.digests.append(content)
        sums.append(of_channels.expand(2, 3))
    survey.sums = torch.stack(sums)[..., : survey.shape[0]] if sums else torch.empty(0)
    return survey


def _each(reader: Reader, how: Handling, survey: Survey, work: Callable[[int], Any]) -> Iterator[tuple[int, Any]]:
    """The places of readable files, in order, and what `work` makes of each. Threads work, as decoders free the GIL."""

    def chunk(start: int) -> list[Any]:
        return [_attempt(work, place) for place in range(start, min(start + CHUNK, len(reader)))]

    last = time.monotonic()
    pool = ThreadPoolExecutor(cores(how.processes))
    try:
        for number, results in enumerate(pool.map(chunk, range(0, len(reader), CHUNK))):
            for place, result in enumerate(results, number * CHUNK):
                if not isinstance(result, ImageError):
                    yield place, result
                    continue
                survey.errors[place] = str(result)
                _check_errors(reader, survey, how)
            if time.monotonic() - last > SAY_EVERY:
                last = time.monotonic()
                log.info(f"read {(number + 1) * CHUNK:,} of {len(reader):,} images")
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(work: Callable[[int], Any], place: int) -> Any:
    try:
        return work(place)
    except ImageError as error:
        return error


def _check_size(reader: Reader, survey: Survey, usual: Sequence[int], place: int, size: Sequence[int]) -> None:
    if tuple(size) != tuple(usual):
        first = survey.readable[0]
        raise ConfigError(
            f"images of different sizes: {reader.path(first)} has {usual[1]}×{usual[0]} pixels, {reader.path(place)} "
            f"{size[1]}×{size[0]}: data.size= resizes all"
        )


def _check_errors(reader: Reader, survey: Survey, how: Handling) -> None:
    if survey.errors and how.corrupt == "stop":
        place, reason = next(iter(survey.errors.items()))
        raise ConfigError(
            f"{reader.path(place)} cannot be read: {reason}; remove it, or leave such files out with data.corrupt=skip"
        )


def _report(reader: Reader, survey: Survey, how: Handling) -> None:
    """Reports the files that are left out: a few of them on the console, all of them in train.log."""
    _check_errors(reader, survey, how)
    bad = [f"{reader.name(place)} ({reason})" for place, reason in survey.errors.items()]
    if not survey.readable:
        raise ConfigError(f"data.corrupt=skip: none of {len(bad)} files can be read: {bad[0]}")
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        log.warning(f"{len(bad)} of {len(reader)} files cannot be read and are left out: {', '.join(bad[:5])}{more}")
        log.debug(f"left out: {', '.join(bad)}")


def _fits(reader: Reader, how: Handling) -> bool:
    """Whether all images take a small part of memory if they are like the first readable one, in colour."""
    for place in range(len(reader)):
        x = _attempt(reader.__getitem__, place)
        if isinstance(x, Tensor):
            bytes_ = len(reader) * x[0].numel() * (how.channels or 3)
            return bytes_ <= _memory() // (MEMORY_SHARE * how.processes)
    return True


def _memory() -> int:
    """Bytes of this machine's memory, or of this container's."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 * 2**30
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # there is no such file, or no limit in it
        return total


def _cached_survey(reader: Reader, how: Handling) -> Survey:
    """The survey of these files, from an earlier run's cache where the files have not changed since."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normlab"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"images-{_fingerprint(reader)}.npz"
        lock = FileLock(file.with_suffix(".lock"))
        lock.acquire()  # one process decodes, and the others read what it has written
    except OSError as error:
        log.warning(f"{folder} cannot be written to ({error.strerror}): every run decodes all images once more")
        return _survey(reader, how)
    with lock:
        survey = _load(file)
        if survey is None:
            survey = _survey(reader, how)
            _store(file, survey)
        return survey


def _fingerprint(reader: Reader) -> str:
    """A digest that changes with any file's name, size or time, and with how the files are read."""
    digest = hashlib.blake2b(f"{FORMAT} {reader.size} {reader.channels}".encode(), digest_size=16)
    for place in range(len(reader)):
        try:
            status = os.stat(reader.path(place))
            facts = f"{reader.name(place)}\0{status.st_size}\0{status.st_mtime_ns}\0"
        except OSError as error:
            facts = f"{reader.name(place)}\0{error.errno}\0"
        digest.update(os.fsencode(facts))
    return digest.hexdigest()


def _load(file: Path) -> Survey | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            errors = {int(place): reason for place, reason in json.loads(str(kept["errors"])).items()}
            shape = tuple(kept["shape"].tolist())
            sums = torch.from_numpy(kept["sums"])
            return Survey(kept["readable"].tolist(), kept["digests"].tolist(), errors, shape, sums)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # there is no cache, or a damaged one
        return None


def _store(file: Path, survey: Survey) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        np.savez(
            out,
            readable=survey.readable,
            digests=survey.digests,
            errors=json.dumps(survey.errors),
            shape=survey.shape,
            sums=survey.sums.numpy(),
        )
    os.replace(part, file)
