"""Compares scores of the same seeds, or of the same parts of the data: a block holds one score a configuration."""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from normlab.report.runs import Run

Scores = Mapping[tuple[Any, ...], float]  # by replicate: seed, data.split_seed, data.fold

SEEDS, SPLITS, FOLDS, PARTS = "seed", "split", "fold", "part of the data"


@dataclass(frozen=True)
class Blocks:
    """unit: what a block is, such as a seed. shared: the replicates that all compared configurations have, in order."""

    unit: str
    shared: list[tuple[Any, ...]]

    @property
    def names(self) -> list[Hashable]:
        """The blocks, each once."""
        return list(dict.fromkeys(map(self.name, self.shared)))

    @property
    def units(self) -> str:
        return {PARTS: "parts of the data"}.get(self.unit, f"{self.unit}s")

    def name(self, replicate: tuple[Any, ...]) -> Hashable:
        """The block of a replicate: its seed, or, where parts of the data differ, its part."""
        return replicate[0] if self.unit == SEEDS else replicate[1:]

    def means(self, scores: Scores, only_shared: bool = True) -> list[float]:
        """A configuration's mean score in each block."""
        by_block: dict[Hashable, list[float]] = {}
        for replicate in self.shared if only_shared else scores:
            by_block.setdefault(self.name(replicate), []).append(scores[replicate])
        return [fmean(values) for values in by_block.values()]


def unit_of(runs: Iterable[Run]) -> str:
    """What is drawn at random between runs: the part of the data where that differs, else the seed.

    Seeds on the same part of the data are not independent of each other: five seeds on three parts count as three.
    """
    replicates = [run.replicate for run in runs]
    splits, folds = (len({replicate[place] for replicate in replicates}) > 1 for place in (1, 2))
    if splits and folds:
        return PARTS
    return SPLITS if splits else FOLDS if folds else SEEDS


def shared_blocks(unit: str, scores: Sequence[Scores]) -> tuple[Blocks, list[int]]:
    """The blocks on which configurations are compared, and the places of the configurations that have them.

    All configurations are compared on what all of them share. Where that is fewer than two blocks, the configurations
    with the fewest scores are left out, since they have not run to their end yet. The blocks are empty where
    configurations share none.
    """
    places = [place for place, each in enumerate(scores) if each]
    while places:
        shared = set.intersection(*(set(scores[place]) for place in places))
        blocks = Blocks(unit, sorted(shared))
        counts = {len(scores[place]) for place in places}
        if len(blocks.names) >= 2 or len(counts) < 2:
            return blocks, places
        places = [place for place in places if len(scores[place]) > min(counts)]
    return Blocks(unit, []), []


def components(replicates: Sequence[Collection[Hashable]]) -> list[list[int]]:
    """The places of sets that hang together by common elements, directly or by others."""
    groups: list[tuple[set[Hashable], list[int]]] = []
    for place, each in enumerate(replicates):
        own, members = set(each), [place]
        for group in [group for group in groups if group[0] & own]:
            groups.remove(group)
            own, members = own | group[0], group[1] + members
        groups.append((own, members))
    return sorted(sorted(members) for _, members in groups)


def overlap(unit: str, runs: Sequence[Run], part: str) -> float | None:
    """n_test / n_train, by which parts of one data set depend on each other; 0 for seeds; None where it is not known.

    Nadeau & Bengio, Inference for the Generalization Error, 2003: the variance of a mean over J of them is
    (1/J + n_test / n_train) times that of one score.
    """
    if unit == SEEDS:
        return 0.0
    for run in runs:
        if run.samples.get(part) and run.samples.get("train"):
            return run.samples[part] / run.samples["train"]
    data = next((run.config["data"] for run in runs if isinstance(run.config.get("data"), dict)), {})
    try:  # the share that was configured
        if folds := data.get("folds"):
            return 1 / (float(folds) - 1)
        taken = float(data[f"{part}_fraction"])
        return taken / (1 - float(data["val_fraction"]) - float(data["test_fraction"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def resolution(scores: Iterable[float], samples: int | None) -> float:
    """The step by which an accuracy over `samples` changes; without them, the smallest step between the scores."""
    if samples:
        return 1 / samples
    steps = np.diff(np.unique(np.array([*scores]).round(9)))
    return float(steps.min()) if len(steps) else 0.0


def pessimistic(scores: Scores, lost: Collection[tuple[Any, ...]], shared: Sequence[tuple[Any, ...]], worst: float):
    """A configuration's mean on what the others share, where each lost run counts as the worst score seen."""
    kept = [scores.get(each, worst) for each in shared if each in scores or each in lost]
    kept = kept or [*scores.values(), *[worst] * len(lost)]
    return fmean(kept) if kept else math.nan
