"""Means with their intervals, by Student's t: seeds are few. What tells configurations apart stands in differences.py.

Intervals are of the mean over all seeds that there could be, on this split of the data; they say nothing about other
data.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit  # scipy.stats, which has the same, takes a second to import

CONFIDENCE = 0.95
NAN, INF = float("nan"), float("inf")

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


def estimate(
    values: Sequence[float], floor: float = 0.0, overlap: float = 0.0, bounds: tuple[float, float] = (-INF, INF)
) -> Estimate:
    """The mean and its t-interval, cut off at the bounds of the score.

    floor: the least variance of a value. overlap: what samples that the values share add to 1 / count in the variance
    of their mean, see blocks.py.
    """
    if len(values) < 2:
        return Estimate(values[0] if values else NAN, NAN, NAN, NAN, len(values))
    mean, sd, count = fmean(values), stdev(values), len(values)
    half = _quantile(CONFIDENCE, count - 1) * math.sqrt(max(sd**2, floor) * (1 / count + overlap))
    low, high = bounds
    return Estimate(mean, sd, max(mean - half, low), min(mean + half, high), count)


def sampling_error(first: float, second: float, samples: int) -> float:
    """Half of the 95 % interval of a difference between two accuracies, for other samples of the same number.

    Binomial, as if each had samples of its own: on the same ones their errors are alike, and it is less.
    """
    return 1.96 * math.sqrt((first * (1 - first) + second * (1 - second)) / samples)


def marginal(
    runs: Iterable[tuple[str, Hashable, Hashable, float]], estimate: Callable[[list[float]], Estimate] = estimate
) -> tuple[dict[str, Estimate], bool]:
    """The mean score of each value of a key, averaged over all other keys, with its interval over seeds.

    runs: (value, other settings, seed, score). estimate: what makes an interval of the means of the seeds. Only where
    every value has a score for the same other settings and seed do the runs count, so that a failed job does not favour
    a value; the second result says whether that was so. Where nothing is shared, as in a random search, all runs count.
    """
    blocks: Blocks = {}
    for value, others, seed, score in runs:
        blocks.setdefault((others, seed), {})[value] = score
    values = {value: None for block in blocks.values() for value in block}
    whole = {key: block for key, block in blocks.items() if len(block) == len(values)}
    kept = whole or blocks
    return {value: estimate(_over_seeds(kept, value)) for value in values}, bool(whole)


def _over_seeds(blocks: Blocks, value: str) -> list[float]:
    """A mean for each seed, over the other settings: seeds are drawn at random, so their means are the sample."""
    by_seed: dict[Hashable, list[float]] = {}
    for (_, seed), block in blocks.items():
        if value in block:
            by_seed.setdefault(seed, []).append(block[value])
    return [fmean(scores) for scores in by_seed.values()]


def _quantile(confidence: float, freedom: float) -> float:
    """The two-sided bound of Student's t."""
    return float(stdtrit(freedom, (1 + confidence) / 2))
