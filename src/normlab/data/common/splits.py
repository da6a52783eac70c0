"""Deterministic splits: training, validation and test part, folds, subsets, and labels made wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from torch import Tensor

from normlab.errors import ConfigError


class Splitter:
    """Splits samples by their targets, stratified where these are classes, and by the seed alone.

    The fractions are of all samples that are given to split. With `folds`, the validation part is instead the `fold`-th
    (from 0) of that many parts of what is not test. Raises ConfigError where a part would be empty, or lack a class.
    """

    def __init__(
        self, val_fraction: float, test_fraction: float, seed: int, folds: int | None, fold: int, classes: Sequence[str]
    ):
        """classes: the names of the targets 0, 1, …; empty for a target to regress."""
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
        kept, _ = train_test_split(everything, train_size=size, random_state=self.seed, stratify=self._strata(y))
        return torch.from_numpy(kept)

    def _cut(self, y: Tensor, places: np.ndarray, fraction: float, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The places that remain, and the places of the part that is cut off."""
        strata = self._strata(y[places])
        size = -(-len(places) * fraction // 1)  # as scikit-learn rounds
        smallest = min(size, len(places) - size)
        if smallest < 1 or (strata is not None and smallest < len(self.classes)):
            needs = "a sample" if strata is None else f"a sample of each of {len(self.classes)} classes"
            raise ConfigError(
                f"data.{name}_fraction={self.fractions[name]}: {len(places)} samples cannot be cut so that both parts "
                f"have {needs}"
            )
        cut = train_test_split(places, test_size=fraction, random_state=self.seed, stratify=strata)
        return np.asarray(cut[0]), np.asarray(cut[1])

    def _fold(self, y: Tensor, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.folds is not None
        strata = self._strata(y[places])
        fewest = len(places) if strata is None else int(np.bincount(strata).min())
        if fewest < self.folds:
            of = "samples to split" if strata is None else "samples of a class"
            raise ConfigError(f"data.folds={self.folds}: there are only {fewest} {of}")
        kind = KFold if strata is None else StratifiedKFold
        folds = kind(self.folds, shuffle=True, random_state=self.seed)
        train, val = list(folds.split(places, strata))[self.fold]
        return places[train], places[val]

    def _strata(self, y: Tensor) -> np.ndarray | None:
        """The classes to stratify by. Raises ConfigError for a class with a single sample, which cannot be shared."""
        if not self.classes:
            return None
        counts = torch.bincount(y, minlength=len(self.classes))
        rare = [f"{self.classes[c]} ({counts[c]})" for c in torch.nonzero(counts < 2).flatten().tolist()]
        if rare:
            raise ConfigError(
                f"classes with fewer than two samples to split: {', '.join(rare)}; add samples, or leave them out"
            )
        return y.numpy()


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
