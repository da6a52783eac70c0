"""What is predicted or scored: a part of the data, or new samples, which are read while the network runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from normlab.data.common.base import DataModule
from normlab.data.common.batches import Batches
from normlab.data.common.portions import Portion
from normlab.errors import ConfigError
from normlab.runner.batch_sizes import check_evaluation


class Called:
    """What samples are called, and what their predictions carry, in the order in which they are predicted."""

    def __init__(self, names: Sequence[str] | None = None, kept: Mapping[str, Sequence[Any]] | None = None):
        """names: None numbers the samples from 1."""
        self.names = None if names is None else [*names]
        self.kept = {key: [*values] for key, values in (kept or {}).items()}
        self.taken = 0

    def add(self, portion: Portion) -> None:
        """Takes in what further samples are called."""
        assert self.names is not None
        self.names += portion.names
        for key, values in portion.kept.items():
            self.kept.setdefault(key, []).extend(values)

    def take(self, count: int) -> tuple[Sequence[Any], dict[str, list[Any]]]:
        """The names of the next samples, and what they carry."""
        start, self.taken = self.taken, self.taken + count
        kept = {key: values[:count] for key, values in self.kept.items()}
        for values in self.kept.values():
            del values[:count]
        if self.names is None:
            return range(start + 1, start + count + 1), kept
        names = self.names[:count]
        del self.names[:count]
        return names, kept


class NewBatches:
    """Batches of new samples, which are read a portion at a time; they are those of one tensor with all samples.

    where: how refusals begin. least: fewer samples than so many are refused. look: is given each batch's samples, once
    they are in the form that the network takes. Batches are (x, y); of samples that are not labelled, y counts the
    samples of a portion and means nothing.
    """

    batch_sampler = sampler = None  # Lightning asks for them

    def __init__(
        self,
        portions: Callable[[], Iterator[Portion]],
        batch_size: int,
        transform: Callable[[Tensor], Tensor] | None,
        look: Callable[[Tensor], None],
        where: str,
        least: int = 1,
    ):
        self.portions, self.batch_size, self.transform = portions, batch_size, transform
        self.look, self.where, self.least = look, where, least
        self.called, self.samples = Called([]), 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rest: tuple[Any, Tensor] | None = None  # samples that fill no batch yet
        for portion in self.portions():
            self.called.add(portion)
            self.samples += len(portion.names)
            x, y = portion.x, torch.arange(len(portion.names)) if portion.y is None else portion.y
            if rest is not None:
                x, y = torch.cat([rest[0], x]), torch.cat([rest[1], y])  # pyright: ignore  # only tensors come in portions
            full = len(y) // self.batch_size * self.batch_size
            if full:
                yield from self._batches(_part(x, 0, full), y[:full])
            rest = (_part(x, full, len(y)), y[full:]) if full < len(y) else None
        if rest is not None:
            yield from self._batches(*rest)
        if self.samples < self.least:
            few = "a single sample, and r2 needs two" if self.samples else "no samples"
            raise ConfigError(f"{self.where} holds {few}")

    def _batches(self, x: Any, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(Batches(x, y, self.batch_size, transform=self._ready))

    def _ready(self, x: Tensor) -> Tensor:
        x = x if self.transform is None else self.transform(x)
        self.look(x)
        return x


@dataclass
class Inputs:
    """Batches to predict, or to score; what their samples are called; and whether they have targets."""

    loader: Any
    called: Called
    has_targets: bool = False


def read_inputs(data: Any, path: Path | None, look: Callable[[Tensor], None], labelled: bool = False) -> Inputs:
    """New samples from `path`; without a path, the samples that `data` gives to predict, or else its test part.

    look: is given each batch of new samples in the form that the network takes. labelled: whether they have targets.
    Raises ConfigError where there are none.
    """
    if path is None:
        return _own_part(data)
    if not isinstance(data, DataModule):
        raise ConfigError(f"input={path}: {type(data).__name__} reads no files; leave out input=")
    least = 2 if labelled and data.task == "regress" else 1
    read = partial(data.read_new, path, labelled)
    loader = NewBatches(read, data.batch_size, data.transform(), look, f"input={path}", least)
    return Inputs(loader, loader.called, labelled)


def looking(network: nn.Module, norm_inputs: dict[str, Tensor], shape: Sequence[int], where: str):
    """A function that raises ConfigError for a batch which the network does not take. where: how it begins."""
    known: set[tuple[int, ...]] = set()

    def look(x: Tensor) -> None:
        if tuple(x.shape) in known:
            return
        if tuple(x.shape[1:]) != tuple(shape):
            raise ConfigError(f"{where}: samples have the shape {tuple(x.shape[1:])}; the network takes {tuple(shape)}")
        try:
            check_evaluation(network, norm_inputs, [len(x)])
        except ValueError as error:
            raise ConfigError(str(error)) from error
        known.add(tuple(x.shape))

    return look


def _own_part(data: Any) -> Inputs:
    if is_overridden("predict_dataloader", data):
        return Inputs(data.predict_dataloader(), Called())
    if is_overridden("test_dataloader", data):
        names = data.sample_names.get("test") if isinstance(data, DataModule) else None
        kept = data.kept(names) if names is not None else {}
        return Inputs(data.test_dataloader(), Called(names, kept), has_targets=True)
    raise ConfigError("action=predict: this data has no test part; say what to predict with input=<file or folder>")


def _part(x: Any, start: int, stop: int) -> Any:
    return x[start:stop] if isinstance(x, Tensor) else x[torch.arange(start, stop)]
