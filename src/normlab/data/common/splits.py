"""Deterministic splits: training, validation and test part, folds, subsets, and labels made wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from torch import Tensor

from normlab.errors import ConfigError


class Splitter:
    """Splits samples by their targets, stratified where these are classes or labels, and by the seed alone.

    Classes are stratified by the class, labels (N, columns) by the rarest label of each sample, numbers not at all.

    The fractions are of all samples that are given to split. With `folds`, the validation part is instead the `fold`-th
    (from 0) of that many parts of what is not test. Raises ConfigError where a part would be empty, or lack a class.
    """

    def __init__(
        self, val_fraction: float, test_fraction: float, seed: int, folds: int | None, fold: int, classes: Sequence[str]
    ):
        """classes: the names of the targets 0, 1, …; empty where a target is no class."""
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.seed, self.folds, self.fold, self.classes = seed, folds, fold, classes

    def split(self, y: Tensor, given: Sequence[str] = ()) -> dict[str, Tensor]:
        """The places of each part that is cut from samples with targets `y`. given: parts that need not be cut."""
        if self.folds is not None and "val" in given:
            raise ConfigError(f"data.folds={self.folds}: this data has a validation part of its own")
        rest = {"train": np.arange(len(y))}
        cut = {name: self.fractions[name] for name in ("test", "val") if name not in given}
        if self.folds is not None:
            cut.pop("val")
        left = 1.0
        for name, fraction in cut.items():
            if fraction:
                rest["train"], rest[name] = self._cut(y, rest["train"], fraction / left, name)
                left -= fraction
        if self.folds is not None:
            rest["train"], rest["val"] = self._fold(y, rest["train"])
        return {name: torch.from_numpy(places) for name, places in rest.items()}

    def part(self, y: Tensor, amount: float) -> Tensor:
        """The places of `amount` samples, or of that fraction of them where it is at most 1."""
        everything = np.arange(len(y))
        if amount == 1:
            return torch.from_numpy(everything)
        if amount > len(y):
            raise ConfigError(f"data.subset={amount}: the training part has {len(y)} samples")
        size = int(amount) if amount > 1 else round(amount * len(y))
        if size == len(y):
            return torch.from_numpy(everything)
        fewest = max(1, len(self.classes))
        if size < fewest:
            raise ConfigError(
                f"data.subset={amount} takes {size} samples of {fewest} classes: take one of each at least"
            )
        strata = self._strata(y, len(y) / min(size, len(y) - size))
        kept, _ = train_test_split(everything, train_size=size, random_state=self.seed, stratify=strata)
        return torch.from_numpy(kept)

    def _cut(self, y: Tensor, places: np.ndarray, fraction: float, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The places that remain, and the places of the part that is cut off."""
        size = -(-len(places) * fraction // 1)  # as scikit-learn rounds
        smallest = min(size, len(places) - size)
        strata = self._strata(y[places], len(places) / max(1, smallest))
        if smallest < max(1, len(self.classes)):
            needs = f"a sample of each of {len(self.classes)} classes" if self.classes else "a sample"
            raise ConfigError(
                f"data.{name}_fraction={self.fractions[name]}: {len(places)} samples cannot be cut so that both parts "
                f"have {needs}"
            )
        cut = train_test_split(places, test_size=fraction, random_state=self.seed, stratify=strata)
        return np.asarray(cut[0]), np.asarray(cut[1])

    def _fold(self, y: Tensor, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.folds is not None
        strata = self._strata(y[places], self.folds)
        fewest = len(places) if strata is None else int(np.bincount(strata).min())
        if fewest < self.folds:
            of = "samples of a class" if self.classes else "samples to split"
            raise ConfigError(f"data.folds={self.folds}: there are only {fewest} {of}")
        kind = KFold if strata is None else StratifiedKFold
        folds = kind(self.folds, shuffle=True, random_state=self.seed)
        train, val = list(folds.split(places, strata))[self.fold]
        return places[train], places[val]

    def _strata(self, y: Tensor, fewest: float) -> np.ndarray | None:
        """What to stratify by; of labels, strata of fewer samples than `fewest` are one stratum together.

        Raises ConfigError for a class with a single sample, which cannot be shared.
        """
        if not self.classes:
            return None if y.is_floating_point() else _joined(_rarest(y), max(2, fewest))
        counts = torch.bincount(y, minlength=len(self.classes))
        rare = [f"{self.classes[c]} ({counts[c]})" for c in torch.nonzero(counts < 2).flatten().tolist()]
        if rare:
            raise ConfigError(
                f"classes with fewer than two samples to split: {', '.join(rare)}; add samples, or leave them out"
            )
        return y.numpy()


def _rarest(y: Tensor) -> np.ndarray:
    """The column and value of each sample's rarest label, as a number; y (N, columns) of 0 and 1."""
    counts = torch.stack([(y == 0).sum(0), (y == 1).sum(0)])
    column = counts.gather(0, y).argmin(1)
    return (2 * column + y.gather(1, column[:, None])[:, 0]).numpy()


def _joined(strata: np.ndarray, fewest: float) -> np.ndarray:
    """Strata, counted from the largest, of at least `fewest` samples: smaller ones are put together, or to the last."""
    _, codes, counts = np.unique(strata, return_inverse=True, return_counts=True)
    ranks = np.empty(len(counts), dtype=int)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    large, left = int((counts >= fewest).sum()), counts[counts < fewest].sum()
    return np.minimum(ranks, large if large == 0 or left >= fewest else large - 1)[codes]


def with_noise(y: Tensor, fraction: float, classes: int, seed: int) -> Tensor:
    """Classes `y` (N,) of which the given fraction, rounded, is replaced by another class; all are equally likely."""
    random = np.random.default_rng(seed)
    chosen = random.choice(len(y), round(fraction * len(y)), replace=False)
    noisy = y.clone()
    noisy[chosen] = (y[chosen] + torch.from_numpy(random.integers(1, classes, len(chosen)))) % classes
    return noisy


def cut(y: Tensor, splitter: Splitter, subset: float, given: Sequence[str]) -> dict[str, Tensor]:
    """The places of each part that is cut from a training part with targets `y`. given: parts that need no cut."""
    places = splitter.split(y, given)
    places["train"] = places["train"][splitter.part(y[places["train"]], subset)]
    return places


def taken(pair: tuple[Any, Tensor], places: Mapping[str, Tensor]) -> dict[str, tuple[Any, Tensor]]:
    """Samples and targets at the places of each part."""
    x, y = pair
    return {name: (x[index], y[index]) for name, index in places.items()}
