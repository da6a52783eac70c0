"""Images that other processes decode ahead while the network trains."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from normlab.data.images.decoding import ImageError, content, decode, shaped

MOST_WORKERS = 8


class Reader:
    """Image files by their places, each uint8 (C, H, W), in one size and number of channels where these are given.

    Names are kept as an array of bytes, since each process that reads a list would soon have its own copy of it.
    """

    def __init__(self, root: Path, names: Sequence[str], size: int | None, channels: int | None):
        self.root, self.size, self.channels = os.fsencode(root), size, channels
        self.names = np.array([os.fsencode(name) for name in names])

    def __len__(self) -> int:
        return len(self.names)

    def name(self, place: int) -> str:
        return os.fsdecode(self.names[place])

    def path(self, place: int) -> str:
        return os.fsdecode(os.path.join(self.root, self.names[place]))

    def __getitem__(self, place: int) -> Tensor:
        """Raises ImageError."""
        return self.look(place)[0]

    def look(self, place: int) -> tuple[Tensor, bytes]:
        """An image, and the content of its file. Raises ImageError."""
        stored = content(self.path(place))
        return shaped(decode(stored), self.size, self.channels), stored


class _Batches(Dataset[Tensor | str]):
    """Whole batches of images uint8 (B, *shape), given by the places of their images."""

    def __init__(self, reader: Reader, shape: Sequence[int]):
        self.reader, self.shape = reader, shape

    def __getitem__(self, places: Sequence[int]) -> Tensor | str:
        """A batch, or text on what is wrong with it: an error from another process would bring its traceback along."""
        images = torch.empty(len(places), *self.shape, dtype=torch.uint8)
        for row, place in enumerate(places):
            try:
                images[row] = self.reader[place]
            except (ImageError, RuntimeError) as error:  # unreadable, or of another size
                return f"{self.reader.path(place)} is not what it was: {str(error).splitlines()[0]}"
        return images


class Files:
    """A `Source` of image files, uint8 (B, C, H, W), on `device`.

    Up to `workers` processes decode whole batches, in the order of the steps, and stay for the next epoch; 0 decodes
    in this process. The samples are the same for any number.
    """

    def __init__(self, reader: Reader, shape: Sequence[int], sums: Tensor, workers: int, places: Tensor | None = None):
        """shape: that of an image. sums: of pixels and of their squares, int64 (files, 2, C). places: None for all."""
        self.reader, self.sums, self.workers = reader, sums, workers
        self.read = _Batches(reader, shape)
        self.places = torch.arange(len(reader)) if places is None else places
        self.shape = (len(self.places), *shape)
        self.device = torch.device("cpu")
        self.idle: _Loader | None = None  # a loader from which no epoch is being read

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Tensor) -> "Files":
        return Files(self.reader, self.shape[1:], self.sums, self.workers, self.places[index])

    def pixel_sums(self) -> tuple[Tensor, int]:
        """Sums of all pixels and of their squares, (2, C), and how many there are in a channel."""
        *_, height, width = self.shape
        return self.sums[self.places].sum(0), len(self) * height * width

    def batches(self, steps: Sequence[Tensor]) -> Iterator[Tensor]:
        order = [self.places[step] for step in steps]
        if not self.workers or not order:
            for places in order:
                yield self._checked(self.read[places.tolist()])
            return
        loader, self.idle = self.idle or self._loader(len(order)), None
        try:
            for images in loader.read(order):
                yield self._checked(images)
        except GeneratorExit:  # the epoch was left early
            self.idle = loader
            raise
        self.idle = loader

    def close(self) -> None:
        """Ends the processes; the next epoch would start others."""
        self.idle = None

    def _loader(self, steps: int) -> "_Loader":
        return _Loader(self.read, min(self.workers, steps), pinned=self.device.type == "cuda")

    def _checked(self, images: Tensor | str) -> Tensor:
        if isinstance(images, str):
            raise RuntimeError(images)
        return images.to(self.device, non_blocking=True)


class _Loader:
    """A DataLoader of whole batches whose processes stay."""

    def __init__(self, dataset: _Batches, workers: int, pinned: bool):
        self.steps = _Steps()
        self.loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=self.steps,
            num_workers=workers,
            persistent_workers=True,
            pin_memory=pinned,
            generator=torch.Generator(),  # without one it would draw from the global one
            # A fork starts in milliseconds and shares the names; other processes would import torch first.
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )

    def read(self, steps: Sequence[Tensor]) -> Iterator[Any]:
        self.steps.places = steps
        try:
            with warnings.catch_warnings():  # Python 3.12 and later warn of threads that a fork leaves behind
                warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
                batches = iter(self.loader)
            yield from batches
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RuntimeError(
                f"a process that decodes images died ({str(error).splitlines()[0]}): where memory, or shared memory "
                "such as a container's /dev/shm, runs out, take fewer data.workers= or a smaller data.batch_size=; "
                "data.workers=0 decodes in the training process"
            ) from error


class _Steps(Sampler[list[int]]):
    """The places that each step of the next epoch reads."""

    places: Sequence[Tensor] = ()

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[list[int]]:
        return (places.tolist() for places in self.places)


def workers_here(workers: int | str, processes: int) -> int:
    """How many processes decode for each of `processes` that train on this machine."""
    return min(MOST_WORKERS, cores(processes)) if workers == "auto" else int(workers)


def cores(processes: int) -> int:
    """How many of the cores that this process may use each of `processes` gets."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // processes)
