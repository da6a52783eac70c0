"""Loaders that wrap a loader."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
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
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Chunk]:
        """The chunks of an epoch but for the `first` ones."""
        passed = first * self.size
        batches = islice(from_batch(self.loader, passed), self.batches - passed)
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


class Resumable:
    """A training loader whose next pass can begin within an epoch, where an interrupted run goes on.

    A pass begins when its first batch is asked for: a DataLoader then draws its order from the random numbers of the
    epoch, in the first epoch as in every other.
    """

    def __init__(self, loader: Any):
        self.loader = loader
        # Lightning sets the epoch of both.
        self.sampler, self.batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
        self.passed, self.passing = 0, nullcontext

    def begin(self, passed: int, passing: Callable[[], AbstractContextManager[None]]) -> None:
        """Lets the next pass leave out the batches that were trained on, within a context for what is drawn there."""
        self.passed, self.passing = passed, passing

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        passed, passing = self.passed, self.passing
        self.begin(0, nullcontext)
        with passing():
            batches = from_batch(self.loader, passed)
        yield from batches

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self.loader, name)


def from_batch(loader: Any, first: int) -> Iterator[Any]:
    """A pass over a loader but for its `first` batches; they are read and dropped where it cannot leave them out."""
    if hasattr(loader, "from_batch"):
        return loader.from_batch(first)
    batches = iter(loader)
    for _ in islice(batches, first):
        pass
    return batches
