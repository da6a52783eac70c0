"""Which arms cannot be told from each other: arms that share a letter."""

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from normlab.report.compare import lags
from normlab.report.comparison import Comparison, Configuration


def told_apart(comparison: Comparison) -> tuple[list[Configuration], np.ndarray]:
    """The compared configurations, and for each two of them whether they differ by more than noise, (arms, arms).

    All the claims of one comparison hold together in 95 % of sweeps, since Tukey's range is of all pairs; see
    differences.py.
    """
    compared = [configuration for configuration in comparison.configurations if configuration.compared]
    rows = [[difference.told_apart for _, difference in lags(comparison, each)] for each in compared]
    ahead = np.array(rows, dtype=bool).reshape(len(compared), len(compared))
    return compared, ahead | ahead.T


def groups(apart: np.ndarray) -> list[list[int]]:
    """The largest sets of places of which no two are told apart: two places share a set if and only if they are not.

    apart: (arms, arms), symmetric. Piepho, An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons,
    2004: each two that are told apart split the sets that have both, and sets within others are dropped.
    """
    sets = [frozenset(range(len(apart)))]
    for one, other in np.argwhere(np.triu(apart)):
        split = []
        for each in sets:
            split += [each - {one}, each - {other}] if {one, other} <= each else [each]
        sets = [each for each in dict.fromkeys(split) if not any(each < larger for larger in split)]
    return sorted(sorted(map(int, each)) for each in sets if each)


def letters(members: Sequence[Sequence[int]], count: int) -> list[str]:
    """The letters of each of `count` places: `a` for the first set that it is in, and so on."""
    names = {_name(number): each for number, each in enumerate(members)}
    return [" ".join(name for name, each in names.items() if place in each) for place in range(count)]


def _name(number: int) -> str:
    """`a` to `z`, then `a2` to `z2`."""
    turn, place = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[place] + (str(turn + 1) if turn else "")
