"""Data sets held as tensors: deterministic splits, and batches cut by index."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningDataModule
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Sampler

from normlab.seeds import generator

Augment = Callable[[Tensor, Tensor, int], Tensor]


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


class Batches:
    """(x, y) pairs cut from tensors by index: no sample is touched on its own, which a DataLoader would do.

    `sampler` gives the order, None the stored one. `augment(x, index, epoch)` changes a batch of samples; index holds
    their places in the training set. Several `processes` share batches of processes · batch_size samples, each taking
    the block of its `rank`; the blocks of a last, smaller batch are as equal as can be, and may be empty.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        sampler: EpochOrder | None = None,
        drop_last: bool = False,
        augment: Augment | None = None,
        rank: int = 0,
        processes: int = 1,
    ):
        self.x, self.y, self.batch_size = x, y, batch_size
        self.sampler, self.drop_last, self.augment = sampler, drop_last, augment
        self.rank, self.processes = rank, processes
        self.dataset = range(len(x))  # for whoever asks a loader for its number of samples

    def __len__(self) -> int:
        joint = self.batch_size * self.processes
        return len(self.x) // joint if self.drop_last else -(-len(self.x) // joint)

    def weight(self, step: int) -> float:
        """What this process's mean loss counts by, so that the mean over all processes is that of the joint batch."""
        start, stop, samples = self._block(step)
        return (stop - start) * self.processes / samples

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        blocks = (self._block(step)[:2] for step in range(len(self)))
        if self.sampler is None:
            for start, stop in blocks:
                yield self.x[start:stop], self.y[start:stop]
            return
        epoch, order = self.sampler.epoch, self.sampler.permutation()
        for start, stop in blocks:
            index = order[start:stop]
            x = self.x[index]
            yield (x if self.augment is None else self.augment(x, index, epoch)), self.y[index]

    def _block(self, step: int) -> tuple[int, int, int]:
        """Where this process's samples of a step begin and end, and how many samples all processes have in it."""
        joint = self.batch_size * self.processes
        first = step * joint
        samples = min(joint, len(self.x) - first)
        start, stop = (first + rank * samples // self.processes for rank in (self.rank, self.rank + 1))
        return start, stop, samples


class TensorData(LightningDataModule):
    """A data set that fits into memory, split once by `split_seed`; the run's seed decides order and augmentation.

    Subclasses state the facts below and write `load`. Facts are known before anything is loaded. Raises ValueError
    where a split would be empty.
    """

    task: ClassVar[Literal["classify", "regress"]]
    input_shape: tuple[int, ...]  # of one sample: (C, H, W) or (features,)
    out_features: int  # classes, or width of the target

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        drop_last: bool = False,
    ):
        super().__init__()
        self.batch_size, self.drop_last = batch_size, drop_last
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.seed = 0  # the run's, set where the parts meet, as are the two below
        self.rank, self.processes = 0, 1
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def load(self) -> tuple[Tensor, Tensor]:
        """All samples (N, *input_shape), float32, and targets: (N,) int64 classes or (N, out_features) float32."""

    def preprocess(self, train: Tensor) -> Callable[[Tensor], Tensor]:
        """The preprocessing of x, fitted on the training part `train`."""
        return lambda x: x

    def augmentation(self) -> Augment | None:
        """What changes training batches."""
        return None

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        x, y = self.load()
        parts = self._split(y)
        transform = self.preprocess(x[parts["train"]])
        self.splits = {name: (transform(x[index]), y[index]) for name, index in parts.items()}

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (out_features,) of the training part's target."""
        std, mean = torch.std_mean(self.splits["train"][1], dim=0, correction=0)
        return mean, std

    def train_dataloader(self) -> Batches:
        order = EpochOrder(len(self.splits["train"][0]), self.seed)
        return self._batches("train", order, self.drop_last, self.augmentation())

    def val_dataloader(self) -> Batches:
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        return self._batches("test")

    def _batches(self, split: str, *options: Any) -> Batches:
        return Batches(*self.splits[split], self.batch_size, *options, rank=self.rank, processes=self.processes)

    def _split(self, y: Tensor) -> dict[str, Tensor]:
        stratify = y.numpy() if self.task == "classify" else None
        everything = torch.arange(len(y)).numpy()
        arguments: dict[str, Any] = {"random_state": self.split_seed}
        rest, test = train_test_split(everything, test_size=self.test_fraction, stratify=stratify, **arguments)
        fraction = self.val_fraction / (1 - self.test_fraction)
        stratify = None if stratify is None else stratify[rest]
        train, val = train_test_split(rest, test_size=fraction, stratify=stratify, **arguments)
        return {"train": torch.from_numpy(train), "val": torch.from_numpy(val), "test": torch.from_numpy(test)}
