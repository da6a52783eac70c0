"""Ranks over data sets: which arms are better on data sets like these. Demšar, Statistical Comparisons of Classifiers
over Multiple Data Sets, 2006."""

import math
from dataclasses import dataclass

import numpy as np

FEWEST = 5  # with fewer data sets, ranks tell nothing apart
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ranks:
    """mean: each arm's mean rank over the data sets, 1 is the best. count: how many data sets there are.

    p: Friedman's test of all arms being equal. critical: Nemenyi's critical difference; two arms whose mean ranks
    differ by more are told apart.
    """

    mean: np.ndarray
    count: int
    p: float
    critical: float

    @property
    def apart(self) -> np.ndarray:
        """For each two arms whether they are told apart, (arms, arms)."""
        return np.abs(self.mean[:, None] - self.mean) > self.critical


def ranks(scores: np.ndarray) -> Ranks | None:
    """scores: (data sets, arms), higher is better. None for fewer than FEWEST data sets or three arms.

    Equal scores share the mean of their ranks. Friedman's test and the critical difference are those of many data sets;
    with few, the test is somewhat too cautious.
    """
    count, arms = scores.shape
    if count < FEWEST or arms < 3:
        return None
    from scipy.stats import friedmanchisquare, rankdata  # takes a second to import

    by_data = rankdata(-scores, axis=1)
    alike = bool((by_data == by_data[:, :1]).all())  # then Friedman's statistic is 0 / 0
    p = 1.0 if alike else float(friedmanchisquare(*scores.T).pvalue)
    return Ranks(by_data.mean(axis=0), count, p, critical_difference(arms, count))


def critical_difference(arms: int, count: int) -> float:
    """Nemenyi's: how far the mean ranks of two of so many arms have to differ over `count` data sets."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(CONFIDENCE, arms, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(arms * (arms + 1) / (6 * count))
