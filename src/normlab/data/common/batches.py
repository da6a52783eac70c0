"""Batches that are cut by index, in an order that depends on (seed, epoch) alone, in blocks for several processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import Sampler

from normlab.data.common.seeds import generator

Augment = Callable[[Tensor, Tensor, int], Tensor]
Mix = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Source(Protocol):
    """Samples that do not lie in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Self:
        """The samples at these places."""
        ...

    def batches(self, steps: Sequence[Tensor]) -> Iterator[Tensor]:
        """The samples of each step, given by their places; reads ahead."""
        ...


class EpochOrder(Sampler[int]):
    """A permutation of 0 … size-1 that depends on (seed, epoch) alone, so that a resumed run sees the same batches."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:  # called by Lightning before each epoch
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def permutation(self) -> Tensor:
        return torch.randperm(self.size, generator=generator(self.seed, self.epoch))

    def __iter__(self) -> Iterator[int]:
        return iter(self.permutation().tolist())


class Draws:
    """Random numbers for each sample, new in each epoch; they depend on (name, seed, epoch, sample) alone.

    `draw(generator)` gives the numbers of all samples, (samples, …).
    """

    def __init__(self, name: str, seed: int, draw: Callable[[torch.Generator], Tensor]):
        self.name, self.seed, self.draw = name, seed, draw
        self.epoch, self.values = -1, torch.empty(0)

    def __call__(self, index: Tensor, epoch: int) -> Tensor:
        """The numbers of the samples at `index`, on its device."""
        if epoch != self.epoch:
            self.epoch, self.values = epoch, self.draw(generator(self.name, self.seed, epoch)).to(index.device)
        return self.values[index]


class Batches:
    """Batches (x, y), cut by index as a whole; a DataLoader would touch each sample on its own.

    x: a tensor on the device of y, or a `Source` whose samples are brought there. sampler: gives the order; None keeps
    the stored order. Several `processes` share batches of processes · batch_size samples, and each takes the block of
    its `rank`; the blocks of a last, smaller batch are as equal as can be, and may be empty. Then, where `index` has
    the samples' places in the data set, `augment(x, index, epoch)` changes samples, `transform(x)` brings them into
    the form that the network takes, and `mix(x, y, index, epoch)` mixes each two neighbours of the epoch's order,
    which then lie side by side in `x`.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler

    def __init__(
        self,
        x: Tensor | Source,
        y: Tensor,
        batch_size: int,
        sampler: EpochOrder | None = None,
        drop_last: bool = False,
        augment: Augment | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        mix: Mix | None = None,
        rank: int = 0,
        processes: int = 1,
    ):
        self.x, self.y, self.batch_size = x, y, batch_size
        self.sampler, self.drop_last = sampler, drop_last
        self.augment, self.transform, self.mix = augment, transform, mix
        self.rank, self.processes = rank, processes
        self.dataset = range(len(y))  # tells others the number of samples, as a DataLoader's does

    def __len__(self) -> int:
        joint = self.batch_size * self.processes
        return len(self.y) // joint if self.drop_last else -(-len(self.y) // joint)

    def weight(self, step: int) -> float:
        """The weight of this process's mean loss, by which the mean over all processes is the joint batch's."""
        start, stop, samples = self._block(step)
        return (stop - start) * self.processes / samples

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch but for the `first` ones, whose samples are not read."""
        blocks = [self._block(step)[:2] for step in range(first, len(self))]
        order = None if self.sampler is None else self.sampler.permutation()
        for (start, stop), (first, index, x) in zip(blocks, self._read(blocks, order), strict=True):
            y = self.y[index]
            if self.augment is not None:
                x = self.augment(x, index, self._epoch())
            if self.transform is not None:
                x = self.transform(x)
            if self.mix is not None:
                x, y = self.mix(x, y, index, self._epoch())
                x, y = x[start - first : stop - first], y[start - first : stop - first]
            yield x, y

    def _read(self, blocks: Sequence[tuple[int, int]], order: Tensor | None) -> Iterator[tuple[int, Any, Tensor]]:
        """The place in the order where each step begins to read, the places of what it reads, and the samples."""
        if self.mix is not None:  # whole pairs, also where a block ends within one
            blocks = [(start - start % 2, min(stop + stop % 2, len(self.y))) for start, stop in blocks]
        beside = None if order is None else order.to(self.y.device)  # where batches are changed
        for (start, stop), x in zip(blocks, self._samples(blocks, order, beside), strict=True):
            yield start, slice(start, stop) if beside is None else beside[start:stop], x

    def _samples(
        self, blocks: Sequence[tuple[int, int]], order: Tensor | None, beside: Tensor | None
    ) -> Iterator[Tensor]:
        if isinstance(self.x, Tensor):
            return (self.x[start:stop] if beside is None else self.x[beside[start:stop]] for start, stop in blocks)
        order = torch.arange(len(self.y)) if order is None else order
        return self.x.batches([order[start:stop] for start, stop in blocks])

    def _epoch(self) -> int:
        return 0 if self.sampler is None else self.sampler.epoch

    def _block(self, step: int) -> tuple[int, int, int]:
        """Where this process's samples of a step begin and end, and how many samples the step has in all processes."""
        joint = self.batch_size * self.processes
        first = step * joint
        samples = min(joint, len(self.y) - first)
        start, stop = (first + rank * samples // self.processes for rank in (self.rank, self.rank + 1))
        return start, stop, samples
