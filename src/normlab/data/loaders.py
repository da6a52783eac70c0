"""Loaders around a loader of known length."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


class Chunks:
    """Lists of up to `size` batches, for `steps_per_execution`; a remainder is a shorter list.

    limit: so many batches an epoch, or, as a float, that fraction of them.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler

    def __init__(self, loader: Any, size: int, limit: int | float = 1.0):
        self.loader, self.size = loader, size
        self.sampler = getattr(loader, "sampler", None)  # where Lightning tells the epoch
        everything = len(loader)
        self.batches = min(limit, everything) if isinstance(limit, int) else int(limit * everything)

    def __len__(self) -> int:
        return -(-self.batches // self.size)

    def __iter__(self) -> Iterator[list[Any]]:
        batches = islice(self.loader, self.batches)
        while chunk := list(islice(batches, self.size)):
            yield chunk


class Fixed:
    """The first `count` batches, the same in every epoch, for `trainer=overfit`."""

    def __init__(self, loader: Any, count: int):
        self.batches = list(islice(loader, count))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)
