"""How far configurations are behind the best one, and which of these leads are more than noise.

The scores are a two-way layout, configuration × block. A block is a seed that all configurations have, or a part of the
data; what it does to all configurations alike is subtracted. The rest is noise, pooled over the configurations. Since
the best one is chosen by the same scores, a lead has to exceed what the largest of all differences reaches by chance,
which is Tukey's studentized range. For two configurations this is the paired t test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.special import chdtri, fdtrc

CONFIDENCE = 0.95
UNSTABLE = 3.0  # a configuration with this many times the others' spread is not judged by the pooled noise
FOUND = 0.75  # the share of configurations with just that spread that are found, by a limit below it
APART = 4.5  # one with this many times the others' spread would drown the others in its noise, and is not pooled
BEYOND_CHANCE = 1e-4  # the significance level, over a whole sweep, at which APART must hold
NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """How far a mean is behind the best one's, with an interval whose ends are NaN where the noise is not known.

    The intervals of all configurations hold together with 95 %. count: the number of blocks. own: whether the noise was
    estimated from these two configurations alone.
    """

    mean: float
    low: float
    high: float
    count: int
    own: bool = False

    @property
    def known(self) -> bool:
        return not math.isnan(self.low)

    @property
    def told_apart(self) -> bool:
        """Whether the lead is more than noise."""
        return self.low > 0

    def within(self, bound: float) -> "Difference":
        """The same with its ends cut off at ±bound, which no difference of two such scores can exceed."""
        return replace(self, low=max(self.low, -bound), high=min(self.high, bound)) if self.known else self


def behind(scores: np.ndarray, best: int, floor: float = 0.0, overlap: float = 0.0) -> list[Difference]:
    """How far each configuration is behind the best one.

    scores: (configurations, blocks), higher is better. floor: the least variance of a single score. overlap: what is
    added to 1 / blocks in the variance of a mean, as blocks share samples. The best one's own difference is zero.

    A configuration whose spread is UNSTABLE times that of the others, or might be, is compared by the variance of its
    own paired differences where that is wider (Games and Howell 1976 do so without pairs).
    """
    count, blocks = scores.shape
    leads = scores[best].mean() - scores.mean(axis=1)
    if blocks < 2:
        return [Difference(float(lead), NAN, NAN, blocks) for lead in leads]
    pooled, freedom, unstable = _noise(scores, floor)
    share = 1 / blocks + overlap
    differences = []
    for place, lead in enumerate(leads):
        own = bool(unstable[place] or unstable[best]) and place != best
        half = 0.0 if place == best else _range(count, freedom) * math.sqrt(pooled * share)
        if own:
            variance = max((scores[best] - scores[place]).var(ddof=1) / 2, floor)
            half = max(half, _range(count, blocks - 1) * math.sqrt(variance * share))
        differences.append(Difference(float(lead), float(lead - half), float(lead + half), blocks, own))
    return differences


def behind_unpaired(scores: Sequence[np.ndarray], best: int, floor: float = 0.0) -> list[Difference]:
    """What `behind` gives, for configurations without shared blocks (Games and Howell). scores: (blocks,) each."""
    means = [each.mean() for each in scores]
    errors = [max(each.var(ddof=1), floor) / len(each) if len(each) > 1 else NAN for each in scores]
    differences = []
    for place, each in enumerate(scores):
        lead, blocks = float(means[best] - means[place]), min(len(each), len(scores[best]))
        a, b = errors[place], errors[best]
        if place == best or blocks < 2:
            half = 0.0 if place == best else NAN
        elif a + b == 0:
            half = 0.0
        else:  # Welch and Satterthwaite's degrees of freedom
            freedom = (a + b) ** 2 / (a**2 / (len(each) - 1) + b**2 / (len(scores[best]) - 1))
            half = _range(len(scores), freedom) * math.sqrt((a + b) / 2)
        differences.append(Difference(lead, lead - half, lead + half, blocks, own=True))
    return differences


def _noise(scores: np.ndarray, floor: float) -> tuple[float, int, np.ndarray]:
    """The pooled variance of a score, its degrees of freedom, and which configurations are unstable."""
    count, blocks = scores.shape
    pooled = np.ones(count, dtype=bool)
    ratios = np.zeros(count)
    while True:
        inside = np.flatnonzero(pooled)
        total, freedom = _residual(scores[inside]), (len(inside) - 1) * (blocks - 1)
        if len(inside) < 3:
            break
        own, others = _spreads(scores[inside], total)
        ratios[inside] = own / np.maximum(others, max(floor, np.finfo(float).tiny))
        worst = inside[np.argmax(ratios[inside])]
        chance = fdtrc(blocks - 1, (len(inside) - 2) * (blocks - 1), ratios[worst])
        if blocks < 3 or ratios[worst] < APART**2 or chance > BEYOND_CHANCE / count:
            break
        pooled[worst] = False
    unstable = ~pooled
    if len(inside) >= 3:
        unstable |= ratios > _limit(blocks)
    return max(total / freedom, floor), freedom, unstable


def _residual(scores: np.ndarray) -> float:
    """The sum of squares that neither configurations nor blocks explain."""
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((rest**2).sum())


def _spreads(scores: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Each configuration's variance about the others' mean, and the others' variance without it (Shukla 1972).

    The two are independent, and estimate the same where all spreads are equal. Their ratio then has an F distribution
    with blocks − 1 and
    (configurations − 2)(blocks − 1) degrees of freedom.
    """
    count, blocks = scores.shape
    own = (scores - scores.mean(axis=0)).var(axis=1, ddof=1) * count / (count - 1)
    others = np.maximum(total - own * (blocks - 1), 0) / ((count - 2) * (blocks - 1))
    return own, others


@cache
def _limit(blocks: int) -> float:
    """The ratio of variances from which a configuration counts as unstable.

    It uses at most four degrees of freedom: with more it would be so high that heavy tails in few runs pass.
    """
    freedom = min(blocks - 1, 4)
    return UNSTABLE**2 * float(chdtri(freedom, FOUND)) / freedom


@cache
def _range(count: int, freedom: float) -> float:
    """The quantile of the studentized range of `count` means."""
    from scipy.stats import studentized_range  # takes a second to import

    return float(studentized_range.ppf(CONFIDENCE, count, freedom))
