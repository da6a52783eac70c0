"""Intervals that hold in 95 % of test parts of the same size, drawn from where this one came from."""

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # the normal distribution has 95 % of its mass within so many standard deviations


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval; NaN where there is nothing to tell it from."""

    value: float
    low: float
    high: float


NOTHING = Interval(math.nan, math.nan, math.nan)


def share(hits: float, count: float) -> Interval:
    """A share of independent samples with Wilson's score interval, for which neither 0 nor 1 is certain.

    Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if count == 0:
        return NOTHING
    p, z = hits / count, Z**2 / count
    middle = (p + z / 2) / (1 + z)
    half = math.sqrt(p * (1 - p) * z + z**2 / 4) / (1 + z)
    # At the ends of the range the bound is the end itself, which rounding would miss.
    return Interval(p, 0.0 if hits == 0 else middle - half, 1.0 if hits == count else middle + half)


def mean_of_shares(shares: np.ndarray) -> Interval:
    """The mean of a share of each sample, (N,), such as its right labels, which depend on each other.

    Wilson's interval for as many independent labels as would spread alike (Korn & Graubard, 1998).
    """
    p, count = float(shares.mean()), len(shares)
    variance = float(shares.var(ddof=1)) / count if count > 1 else 0.0
    worth = p * (1 - p) / variance if variance > 0 else count
    return share(p * worth, worth)


def f1(hits: int, predicted: int, there: int) -> Interval:
    """F1 of a class with `hits` right ones among `predicted` and among those that are `there`.

    Among the samples that are of the class or are taken for it, the share J of right ones has Wilson's interval, and
    F1 = 2 J / (1 + J) rises with it.
    """
    right = share(hits, predicted + there - hits)
    return Interval(*(2 * bound / (1 + bound) for bound in (right.value, right.low, right.high)))


def mean(values: np.ndarray) -> Interval:
    """The mean of values (N,) with Student's t interval."""
    from scipy.special import stdtrit

    middle = float(values.mean())
    if len(values) < 2:
        return Interval(middle, math.nan, math.nan)
    half = float(stdtrit(len(values) - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)
