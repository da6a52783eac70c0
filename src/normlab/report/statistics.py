"""Means with their intervals, and differences between configurations: the arithmetic of the report.

Student's t throughout: seeds are few. Intervals are of the mean over all seeds that there could be, on this split of
the data; they say nothing about other data.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit  # scipy.stats, which has the same, takes a second to import

CONFIDENCE = 0.95
NAN = float("nan")

Blocks = dict[tuple[Hashable, Hashable], dict[str, float]]  # (other settings, seed): score of each value


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values, their standard deviation (n − 1) and the ends of the mean's interval.

    NaN where there are too few values to tell: sd, low and high of a single one, all of none.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Difference:
    """How far a mean lies above another, with the interval; NaN ends where nothing is known about noise.

    paired: over `count` seeds that both have; otherwise Welch's, and `count` is that of the fewer seeds.
    """

    mean: float
    low: float
    high: float
    count: int
    paired: bool

    @property
    def known(self) -> bool:
        return not math.isnan(self.low)

    @property
    def within_noise(self) -> bool:
        """Whether zero lies in the interval; false where there is none."""
        return self.low <= 0 <= self.high


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean and its t-interval."""
    if len(values) < 2:
        return Estimate(values[0] if values else NAN, NAN, NAN, NAN, len(values))
    mean, sd = fmean(values), stdev(values)
    half = _quantile(confidence, len(values) - 1) * sd / math.sqrt(len(values))
    return Estimate(mean, sd, mean - half, mean + half, len(values))


def difference(
    ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float], confidence: float = CONFIDENCE
) -> Difference:
    """`ours` minus `theirs`, scores by seed: paired over the seeds that both have; Welch's t where no two are."""
    shared = sorted(ours.keys() & theirs.keys(), key=repr)
    if len(shared) >= 2:
        found = estimate([ours[seed] - theirs[seed] for seed in shared], confidence)
        return Difference(found.mean, found.low, found.high, found.count, paired=True)
    one, two = estimate(list(ours.values())), estimate(list(theirs.values()))
    mean, count = one.mean - two.mean, min(one.count, two.count)
    if count < 2:
        return Difference(mean, NAN, NAN, count, paired=bool(shared))
    a, b = one.sd**2 / one.count, two.sd**2 / two.count
    if a + b == 0:
        return Difference(mean, mean, mean, count, paired=False)
    freedom = (a + b) ** 2 / (a**2 / (one.count - 1) + b**2 / (two.count - 1))  # Welch–Satterthwaite
    half = _quantile(confidence, freedom) * math.sqrt(a + b)
    return Difference(mean, mean - half, mean + half, count, paired=False)


def simultaneous(comparisons: int, confidence: float = CONFIDENCE) -> float:
    """The confidence that each of several intervals needs for all to hold together with `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(comparisons, 1)


def marginal(runs: Iterable[tuple[str, Hashable, Hashable, float]]) -> tuple[dict[str, Estimate], bool]:
    """The mean score of each value of a key, averaged over all other keys, with its interval over seeds.

    runs: (value, other settings, seed, score). Only where every value has a score for the same other settings and seed
    do the runs count, so that a failed job does not favour a value; the second result says whether that was so. Where
    nothing is shared, as in a random search, all runs count.
    """
    blocks: Blocks = {}
    for value, others, seed, score in runs:
        blocks.setdefault((others, seed), {})[value] = score
    values = {value: None for block in blocks.values() for value in block}
    whole = {key: block for key, block in blocks.items() if len(block) == len(values)}
    kept = whole or blocks
    return {value: _over_seeds(kept, value) for value in values}, bool(whole)


def _over_seeds(blocks: Blocks, value: str) -> Estimate:
    """Averages over the other settings first: the seeds are what is drawn at random, and their means are the sample."""
    by_seed: dict[Hashable, list[float]] = {}
    for (_, seed), block in blocks.items():
        if value in block:
            by_seed.setdefault(seed, []).append(block[value])
    return estimate([fmean(scores) for scores in by_seed.values()])


def _quantile(confidence: float, freedom: float) -> float:
    """Of Student's t, the bound on both sides."""
    return float(stdtrit(freedom, (1 + confidence) / 2))
