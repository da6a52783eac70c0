"""Which trial of an arm is its tuned setting."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from normlab.config.space import Choices, Numbers, Space

NEAR = 0.08  # the reach of an average over neighbours, as a share of the width of the space


def tuned(
    space: Space, points: Sequence[Mapping[str, Any]], scores: Sequence[float | None], minimized: bool = False
) -> int | None:
    """The number of the trial whose setting an arm is judged by; None where no trial has a score.

    points: the values of each trial, by key of the space. scores: None for a trial that was lost or pruned; it counts
    as the worst score seen. minimized: whether less is better.

    A trial is one training, so its score is noisy, and the best of many is good by luck as well. That is why trials are
    compared by averages over their neighbours in the space, weighted by a Gaussian with a standard deviation of NEAR.
    In simulated sweeps this halves what the luck of tuning costs, and keeps off rates at which some trainings diverge
    (benchmarks/README.md, "Claims of a fair sweep"). Points without neighbours, as in a space of many keys, are
    compared by their own scores.
    """
    import numpy as np  # a command that is refused does without it

    known = np.array([math.nan if score is None else -score if minimized else score for score in scores], dtype=float)
    if np.isnan(known).all():
        return None
    at = np.array([[_place(values, point[key]) for key, values in space.items()] for point in points])
    squares = ((at[:, None] - at) ** 2).sum(axis=2)
    weights = np.exp(-squares / (2 * NEAR**2))
    averages = weights @ np.where(np.isnan(known), np.nanmin(known), known) / weights.sum(axis=1)
    return int(np.argmax(np.where(np.isnan(known), -np.inf, averages)))


def _place(values: Choices | Numbers, value: Any) -> float:
    """Where a value lies, on a scale on which a space of numbers is 1 wide; two choices are never near each other."""
    if isinstance(values, Choices):
        return float(values.values.index(str(value)))
    low, high, at = (math.log(each) if values.log else each for each in (values.low, values.high, float(value)))
    return (at - low) / (high - low) if high > low else 0.0
