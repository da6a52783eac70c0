"""Counts, moments and hashes of a data set's parts, in one pass over each."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from pandas.core.util.hashing import hash_pandas_object
from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.data.common.labels import count_classes
from normlab.data.common.targets import TargetColumn

CHUNK = 512  # samples that are looked at at once
VALUES = 2**22  # values that are looked at at once; large samples come in smaller chunks
SAMPLES = 8  # how many of each class are kept to be shown


@dataclass
class Moments:
    """Mean and deviation of each channel or feature, over what is finite, gathered batch by batch."""

    count: Tensor = field(default_factory=lambda: torch.zeros(()))
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))  # the sum of squared deviations from the mean
    low: float = float("inf")
    high: float = float("-inf")
    missing: int = 0

    def add(self, x: Tensor) -> None:
        """x: (N, C, …)."""
        values = x.double().movedim(1, 0).flatten(1)
        finite = torch.isfinite(values)
        count = finite.sum(1).double()
        self.missing += finite.numel() - int(count.sum())
        if not count.any():
            return
        mean = values.where(finite, 0).sum(1) / count.clamp(min=1)
        squares = (values - mean[:, None]).where(finite, 0).square().sum(1)
        total = self.count + count
        off, share = mean - self.mean, count / total.clamp(min=1)
        self.squares = self.squares + squares + off**2 * self.count * share  # Chan, Golub & LeVeque, 1979
        self.mean = self.mean + off * share
        self.count = total
        self.low = min(self.low, float(values.where(finite, torch.inf).min()))
        self.high = max(self.high, float(values.where(finite, -torch.inf).max()))

    @property
    def std(self) -> Tensor:
        return (self.squares / self.count.clamp(min=1)).sqrt()


@dataclass
class Part:
    """What one part holds. targets: (N,) or (N, width). hashes: (N,), equal for equal samples."""

    targets: Tensor
    hashes: np.ndarray
    names: list[str]  # what each sample is called
    moments: Moments = field(default_factory=Moments)
    frame: pd.DataFrame | None = None  # what a table was read as
    shown: list[tuple[Tensor, int]] = field(default_factory=list)  # a few samples, with their classes

    @property
    def missing(self) -> int:
        return self.moments.missing if self.frame is None else int(self.frame.isna().sum().sum())


@dataclass(frozen=True)
class Match:
    """A sample equal to an earlier one: what they are called, and whether their targets agree."""

    earlier: str
    later: str
    same_target: bool


def measure(data: Any) -> dict[str, Part]:
    """The parts of a data module that is set up; own data as its loaders give it."""
    names = [name for name in ("train", "val", "test") if is_overridden(f"{name}_dataloader", data)]
    return {name: _measured(data, name) for name in names}


def counted(columns: Sequence[TargetColumn]) -> list[str]:
    """What samples are counted by: the classes of a single column, or `<column>=<second class>` of each that has two.

    Empty for numbers.
    """
    if not columns[0].classes:
        return []
    if len(columns) == 1:
        return [*map(str, columns[0].classes)]
    return [f"{column.name}={column.classes[1]}" for column in columns]


def counts(targets: Tensor, columns: Sequence[TargetColumn]) -> Tensor:
    """How many samples there are of each that `counted` names."""
    every = count_classes(targets, len(columns[0].classes) if targets.ndim == 1 else len(columns))
    return every.flatten() if len(columns) == 1 else every[:, 1]


def matches(earlier: Part, later: Part) -> list[Match]:
    """The samples of a part that stand in an earlier one too; of the same part, those that repeat one before."""
    _, first = np.unique(earlier.hashes, return_index=True)
    places = dict(zip(earlier.hashes[first].tolist(), first.tolist(), strict=True))
    equal = np.flatnonzero(np.isin(later.hashes, earlier.hashes)).tolist()
    pairs = [(places[int(later.hashes[place])], place) for place in equal]
    if earlier is later:
        pairs = [(a, b) for a, b in pairs if a != b]
    return [
        Match(earlier.names[a], later.names[b], torch.equal(earlier.targets[a], later.targets[b])) for a, b in pairs
    ]


def _measured(data: Any, name: str) -> Part:
    if not isinstance(data, DataModule):
        return _gathered(_loaded(data, name), data)
    x, y = data.splits[name]
    if hasattr(x, "frame"):  # rows of a table, where a missing text is ""
        rows = [f"row {row + 1}" for row in x.frame.index]
        return Part(y, row_hashes(x.frame), rows, frame=x.frame.mask(x.frame == ""))
    chunk = max(1, min(CHUNK, VALUES // math.prod(data.input_shape)))
    part = _gathered(_batches(x, y, chunk), data)
    return replace(part, names=data.sample_names.get(name, part.names))


def _gathered(batches: Iterable[tuple[Tensor, Tensor]], data: Any) -> Part:
    moments, shown, hashes = Moments(), _Shown(), []
    features, targets = [], []
    for x, y in batches:
        moments.add(x)
        hashes += _hashes(x)
        targets.append(y)
        if x.ndim == 2:
            features.append(x)
        shown.add(x, y if y.ndim == 1 else torch.zeros(len(y), dtype=torch.int64))
    names = [str(number + 1) for number in range(len(hashes))]
    part = Part(torch.cat(targets), np.array(hashes, dtype=np.uint64), names, moments, shown=shown.samples)
    if not features:
        return part
    matrix = torch.cat(features).numpy()
    columns = getattr(data, "feature_names", None) or [str(number) for number in range(matrix.shape[1])]
    return replace(part, frame=pd.DataFrame(matrix, columns=list(columns)))


def _loaded(data: Any, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """What the loader of own data gives, targets as ours are."""
    for x, y, *_ in getattr(data, f"{name}_dataloader")():
        if data.task == "classify":
            yield x, y.argmax(1) if y.ndim == 2 else y
        else:
            yield x, y.reshape(len(y), -1).to(torch.int64 if data.task == "multilabel" else y.dtype)


def _batches(x: Any, y: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    read = x.split(chunk) if isinstance(x, Tensor) else x.batches(torch.arange(len(y)).split(chunk))
    yield from zip(read, y.split(chunk), strict=True)


class _Shown:
    """The first samples of each class."""

    def __init__(self) -> None:
        self.samples: list[tuple[Tensor, int]] = []
        self.counts: dict[int, int] = {}

    def add(self, x: Tensor, y: Tensor) -> None:
        for place, label in enumerate(y.tolist()):
            if self.counts.get(label, 0) < SAMPLES:
                self.counts[label] = self.counts.get(label, 0) + 1
                self.samples.append((x[place].clone(), label))


def _hashes(x: Tensor) -> Iterator[int]:
    rows = x.contiguous().numpy()
    return (int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest()) for row in rows)


def row_hashes(frame: pd.DataFrame) -> np.ndarray:
    """A number for each row (N,), equal for equal rows."""
    return hash_pandas_object(frame, index=False).to_numpy()


def constant_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of one value, missing ones counting as a value."""
    return [str(name) for name, values in frame.nunique(dropna=False).items() if values == 1]


def equal_columns(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Each column with an earlier one that has the same values; constant columns are left out."""
    first: dict[bytes, str] = {}
    pairs = []
    constant = set(constant_columns(frame))
    for name in map(str, frame):
        if name in constant:
            continue
        values = hash_pandas_object(frame[name], index=False).to_numpy()
        digest = hashlib.blake2b(values.tobytes()).digest()
        if digest in first:
            pairs.append((name, first[digest]))
        first.setdefault(digest, name)
    return pairs
