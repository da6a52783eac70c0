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
    their places in the training set.
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
    ):
        self.x, self.y, self.batch_size = x, y, batch_size
        self.sampler, self.drop_last, self.augment = sampler, drop_last, augment
        self.dataset = range(len(x))  # for whoever asks a loader for its number of samples

    def __len__(self) -> int:
        return len(self.x) // self.batch_size if self.drop_last else -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.batch_size
        if self.sampler is None:
            for start in range(0, len(self) * size, size):
                yield self.x[start : start + size], self.y[start : start + size]
            return
        epoch, order = self.sampler.epoch, self.sampler.permutation()
        for start in range(0, len(self) * size, size):
            index = order[start : start + size]
            x = self.x[index]
            yield (x if self.augment is None else self.augment(x, index, epoch)), self.y[index]


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
        self.seed = 0  # the run's, set where the parts meet
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
        x, y = self.splits["train"]
        order = EpochOrder(len(x), self.seed)
        return Batches(x, y, self.batch_size, order, self.drop_last, self.augmentation())

    def val_dataloader(self) -> Batches:
        return Batches(*self.splits["val"], self.batch_size)

    def test_dataloader(self) -> Batches:
        return Batches(*self.splits["test"], self.batch_size)

    def _split(self, y: Tensor) -> dict[str, Tensor]:
        stratify = y.numpy() if self.task == "classify" else None
        everything = torch.arange(len(y)).numpy()
        arguments: dict[str, Any] = {"random_state": self.split_seed}
        rest, test = train_test_split(everything, test_size=self.test_fraction, stratify=stratify, **arguments)
        fraction = self.val_fraction / (1 - self.test_fraction)
        stratify = None if stratify is None else stratify[rest]
        train, val = train_test_split(rest, test_size=fraction, stratify=stratify, **arguments)
        return {"train": torch.from_numpy(train), "val": torch.from_numpy(val), "test": torch.from_numpy(test)}
