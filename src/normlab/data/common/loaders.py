"""Loaders that wrap a loader of known length."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


class Chunk:
    """A few batches. It is no list, since Lightning would move all tensors of a list to the device at once."""

    def __init__(self, batches: list[Any]):
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Chunks:
    """Chunks of up to `size` batches, for `steps_per_execution`; a remainder is a shorter one.

    limit: the number of batches in an epoch, or, as a float, a fraction of them.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler

    def __init__(self, loader: Any, size: int, limit: int | float = 1.0):
        self.loader, self.size = loader, size
        self.sampler = getattr(loader, "sampler", None)  # Lightning sets its epoch
        everything = len(loader)
        self.batches = min(limit, everything) if isinstance(limit, int) else int(limit * everything)

    def __len__(self) -> int:
        return -(-self.batches // self.size)

    def __iter__(self) -> Iterator[Chunk]:
        batches = islice(self.loader, self.batches)
        while chunk := list(islice(batches, self.size)):
            yield Chunk(chunk)


class Fixed:
    """The first `count` batches, the same in every epoch, for `trainer=overfit`."""

    def __init__(self, loader: Any, count: int):
        self.batches = list(islice(loader, count))
        self.weight = getattr(loader, "weight", None)  # what a step counts for, on several processes

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)
