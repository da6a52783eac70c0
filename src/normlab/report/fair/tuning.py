"""How hard an arm is to tune, by the scores of its trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normlab.report.comparison import EQUAL

CLOSE = 0.01  # a score within this share of the best one counts as good


def expected_best(scores: Sequence[float], minimized: bool = False) -> list[float]:
    """The best score to expect of 1, 2, … and all of an arm's trials, if they had been drawn in another order.

    scores: those of all trials, each with a number. The value for n is the mean over all subsets of n trials, without
    replacement: the unbiased form (Tang et al., Showing Your Work Doesn't Always Work, 2020) of the expected validation
    performance of Dodge et al., Show Your Work, 2019, which draws with replacement and is too low.
    """
    worst_first, total = sorted(scores, reverse=minimized), len(scores)
    return [
        sum(score * math.comb(place, n - 1) for place, score in enumerate(worst_first)) / math.comb(total, n)
        for n in range(1, total + 1)
    ]


def leaders(curves: Mapping[str, Sequence[float]], minimized: bool = False) -> list[tuple[list[str], int, int]]:
    """(arms, first, last): which have the best expected score from `first` to `last` trials. curves: `expected_best`.

    It ends with the arm that has the fewest trials. Several arms are named where their scores are equal.
    """
    turns: list[tuple[list[str], int, int]] = []
    for number in range(min(map(len, curves.values()), default=0)):
        values = {arm: -curve[number] if minimized else curve[number] for arm, curve in curves.items()}
        top = max(values.values())
        ahead = [arm for arm, value in values.items() if math.isclose(value, top, rel_tol=EQUAL)]
        if turns and turns[-1][0] == ahead:
            turns[-1] = (ahead, turns[-1][1], number + 1)
        else:
            turns.append((ahead, number + 1, number + 1))
    return turns


@dataclass(frozen=True)
class Width:
    """The range of a key's values around the best one within which every trial was good.

    inner: the outermost good values. outer: the next tried values beyond, which were not good; an end of the space
    where there is none. The true range ends between them. open_low, open_high: whether no value beyond was tried that
    was not good. good: how many trials are within. tried: how many there are.
    """

    inner: tuple[float, float]
    outer: tuple[float, float]
    open_low: bool
    open_high: bool
    good: int
    tried: int

    def octaves(self) -> tuple[float, float]:
        """How many doublings the range has, at least and at most."""
        least, most = (math.log2(high / low) for low, high in (self.inner, self.outer))
        return least, most


def width(
    values: Sequence[float], scores: Sequence[float | None], ends: tuple[float, float], minimized: bool = False
) -> Width | None:
    """The range of good values of one key. ends: those of its space. None where no trial has a score.

    scores: None for a trial without one, such as one that diverged; it was not good. Trials within the range of others
    that were not good end it, so that it is one piece around the best.
    """
    signed = [None if score is None else -score if minimized else score for score in scores]
    pairs = sorted(zip(values, signed, strict=True), key=lambda pair: pair[0])
    known = [score for _, score in pairs if score is not None]
    if not known:
        return None
    best = max(known)
    good = [score is not None and score >= best - CLOSE * abs(best) for _, score in pairs]
    first = last = next(place for place, (_, score) in enumerate(pairs) if score == best)
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(pairs) - 1 and good[last + 1]:
        last += 1
    open_low, open_high = first == 0, last == len(pairs) - 1
    outer = ends[0] if open_low else pairs[first - 1][0], ends[1] if open_high else pairs[last + 1][0]
    return Width((pairs[first][0], pairs[last][0]), outer, open_low, open_high, last - first + 1, len(pairs))


def at_end(values: Sequence[float], tuned: float) -> str:
    """`lowest` or `highest`, where the tuned value is an outermost one of those tried; else nothing."""
    if len(set(values)) < 2:
        return ""
    return "lowest" if tuned <= min(values) else "highest" if tuned >= max(values) else ""
