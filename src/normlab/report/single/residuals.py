"""How far predicted numbers are off."""

from dataclasses import dataclass

import numpy as np

from normlab.report.single import intervals
from normlab.report.single.intervals import Interval, Z


@dataclass(frozen=True)
class NumberScore:
    """A column's scores: r2, the mean absolute error, the root of the mean squared one, and the mean of
    prediction − truth. guessing: the mean absolute error of always guessing the part's median."""

    r2: Interval
    mae: Interval
    rmse: float
    bias: Interval
    guessing: float


def number_score(truth: np.ndarray, predicted: np.ndarray) -> NumberScore:
    """The scores of one column, (N,) each."""
    off = predicted - truth
    return NumberScore(
        r2=r2(truth[:, None], predicted[:, None]),
        mae=intervals.mean(np.abs(off)),
        rmse=float(np.sqrt((off**2).mean())),
        bias=intervals.mean(off),
        guessing=float(np.abs(truth - np.median(truth)).mean()),
    )


def r2(truth: np.ndarray, predicted: np.ndarray) -> Interval:
    """R², the mean over columns of numbers (N, columns), with an interval.

    The share 1 − R² that stays unexplained is a ratio of two means over samples. The delta method gives the variance of
    its logarithm; so the interval is not symmetric and ends below 1.
    """
    count = len(truth)
    errors, spread = (truth - predicted) ** 2, (truth - truth.mean(0)) ** 2
    if count < 2 or not spread.mean(0).all():
        return intervals.NOTHING
    shares = errors.mean(0) / spread.mean(0)
    left = float(shares.mean())
    if left == 0:
        return Interval(1.0, 1.0, 1.0)
    influence = ((errors - shares * spread) / spread.mean(0)).mean(1) / left
    half = Z * float(influence.std(ddof=1)) / count**0.5
    return Interval(1 - left, 1 - left * float(np.exp(half)), 1 - left * float(np.exp(-half)))
