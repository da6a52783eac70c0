"""A person's own data in place of ours: what normlab has to know of it, and a look at each batch."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from normlab.data.common.domains import domain_of
from normlab.data.common.labels import check_binary, check_finite, check_labels, check_varies, count_classes
from normlab.data.common.loaders import Chunk
from normlab.data.common.wrapped import Wrapped
from normlab.errors import ConfigError

log = logging.getLogger(__name__)


def adopt(module: LightningDataModule, measured: Sequence[str]) -> "Adopted":
    """Own data, already set up, with the facts that normlab needs; says which guarantees end.

    The first batch of the `measured` parts is looked at right away. Raises ConfigError for data that cannot be trained
    on, naming the part.
    """
    for part in ("train", "val"):
        if not is_overridden(f"{part}_dataloader", module):
            raise ConfigError(f"own data: {type(module).__name__} has no {part}_dataloader; a fit needs train and val")
        if isinstance(getattr(module, f"{part}_dataloader")(), list | tuple | dict):
            raise ConfigError(f"own data: {part}_dataloader gives several loaders; expected one")
    for part in measured:
        _check_first(module, part)
    adopted = Adopted(module)
    log.warning("own data: splits, order and augmentation are yours, so resuming bit by bit is not guaranteed")
    return adopted


class Adopted(Wrapped):
    """A person's own data module as normlab takes data; the module itself stays as it is.

    Facts that the module has as attributes are taken: `task` (classify, regress or multilabel), `input_shape`,
    `out_features`, and `target_statistics()` or `class_counts()` where they are asked for. Others are read off its
    training batches, which must be pairs (x, y), or triples (x, y, domain) for `norm=domain`: integer y (N,) are
    classes, integer y (N, columns) labels of 0 and 1, floating-point y (N, width) or (N,) a target to regress. Every
    batch is looked at before it is used. Raises ConfigError.
    """

    def __init__(self, module: LightningDataModule):
        super().__init__(module)
        self.targets = _Targets(module)
        self.task = self._stated("task", lambda: self.targets.task)
        if self.task not in ("classify", "regress", "multilabel"):
            raise ConfigError(f"own data: task={self.task}; expected classify, regress or multilabel")
        self.input_shape = self._stated("input_shape", lambda: self.targets.input_shape)
        self.out_features = self._stated("out_features", lambda: self.targets.width(self.task))

    def class_counts(self) -> Tensor:
        """How many samples of each class the training part has, (classes,), or of labels (columns, 2)."""
        return getattr(self.module, "class_counts", lambda: self.targets.counts(self.task, self.out_features))()

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (out_features,) of the training part's target."""
        return getattr(self.module, "target_statistics", self.targets.statistics)()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The module's own hook, followed by a look at the batch. Raises ConfigError."""
        if isinstance(batch, Chunk):
            return Chunk([self.on_before_batch_transfer(single, dataloader_idx) for single in batch])
        batch = self.module.on_before_batch_transfer(batch, dataloader_idx)
        assert self.trainer is not None
        if self.trainer.predicting:
            self._check_samples(batch if isinstance(batch, Tensor) else batch[0], "samples to predict")
            return batch
        x, y, *domain = _pair(batch)
        where = "training part" if self.trainer.training else "validation or test part"
        self._check_samples(x, where)
        if self.task == "classify":
            check_labels(y, self.out_features, f"own data, {where}")
        elif self.task == "multilabel":
            y = y.long()
            check_binary(y, self.out_features, f"own data, {where}")
        else:
            y = y.reshape(len(y), -1).to(x.dtype)
        return (x, y, *map(domain_of, domain))  # read while the processor has it: a GPU would have to be waited for

    def _stated(self, name: str, read: Callable[[], Any]) -> Any:
        stated = getattr(self.module, name, None)
        return read() if stated is None else stated

    def _check_samples(self, x: Tensor, where: str) -> None:
        if is_overridden("on_after_batch_transfer", self.module):
            return  # that hook may still change them
        assert self.trainer is not None
        if not x.is_floating_point() or (x.dtype == torch.float64 and self.trainer.precision != "64-true"):
            kind = str(x.dtype).removeprefix("torch.")
            raise ConfigError(
                f"own data, {where}: samples are {kind}; networks take float32: x.float(), of pixels / 255"
            )


class _Targets:
    """What the training batches tell; they are read once, when it is first asked for."""

    def __init__(self, data: Any):
        self.data = data

    @property
    def all(self) -> Tensor:
        """The targets (N, …)."""
        return self._read[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._read[1]

    @property
    def task(self) -> str:
        """What the targets look like."""
        if self.all.is_floating_point():
            return "regress"
        if self.all.ndim != 2 or self.all.shape[1] == 1:
            return "classify"
        if bool((self.all.long().sum(1) == 1).all()):
            raise ConfigError(
                "own data: each sample has one of the labels (N, columns), which makes them classes: y.argmax(1); if "
                "they are labels all the same, give a LightningDataModule with task='multilabel'"
            )
        return "multilabel"

    def width(self, task: str) -> int:
        """How many outputs the task needs."""
        if task == "regress":
            return self._columns().shape[1]
        if task == "multilabel":
            labels = self.all.long()
            check_binary(labels, self.all.shape[-1], "own data, training part")
            check_varies(labels, "own data, training part")
            return labels.shape[1]
        if self.all.is_floating_point():
            return self.all.shape[1]
        check_labels(self.all, max(1, int(self.all.max()) + 1), "own data, training part")
        if int(self.all.max()) == 0:
            raise ConfigError("own data, training part: all labels are 0; one class leaves nothing to learn")
        return int(self.all.max()) + 1

    def statistics(self) -> tuple[Tensor, Tensor]:
        std, mean = torch.std_mean(self._columns(), dim=0, correction=0)
        return mean, std

    def counts(self, task: str, width: int) -> Tensor:
        if task == "multilabel":
            return count_classes(self.all.long(), width)
        check_labels(self.all, width, "own data, training part")
        return torch.bincount(self.all, minlength=width)

    def _columns(self) -> Tensor:
        columns = self.all.reshape(len(self.all), -1).to(torch.get_default_dtype())
        check_finite(columns, "own data, training part")
        check_varies(columns, "own data, training part")
        return columns

    @property
    def _read(self) -> tuple[Tensor, tuple[int, ...]]:
        if not hasattr(self, "_kept"):
            shape: tuple[int, ...] = ()
            targets = []
            for x, y, *_ in map(_pair, self.data.train_dataloader()):
                shape = tuple(x.shape[1:])
                targets.append(torch.as_tensor(y))
            if not targets:
                raise ConfigError("own data: the training loader is empty")
            self._kept = torch.cat(targets), shape
        return self._kept


def _check_first(data: Any, part: str) -> None:
    """Raises ConfigError where a part's first batch has no targets; processes of a loader are not started for that."""
    loader = getattr(data, f"{part}_dataloader")() if is_overridden(f"{part}_dataloader", data) else None
    if loader is not None and not getattr(loader, "num_workers", 0):
        with torch.random.fork_rng(devices=[]):
            batch = next(iter(loader), None)
        if batch is not None and (isinstance(batch, Tensor) or len(batch) == 1):
            raise ConfigError(f"own data: the {part} part has no targets, which action=predict alone can do without")


def _pair(batch: Any) -> Sequence[Tensor]:
    if not isinstance(batch, Sequence) or len(batch) not in (2, 3):
        raise ConfigError(f"own data: batches must be pairs (x, y), or (x, y, domain); got {type(batch).__name__}")
    return batch
