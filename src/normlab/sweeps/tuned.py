"""Which trial of an arm is its tuned setting."""

from collections.abc import Sequence

import numpy as np

NEAR = 0.1  # the reach of an average over neighbours, as a share of the space's width


def tuned(places: Sequence[float], scores: Sequence[float | None], minimized: bool = False) -> int | None:
    """The trial whose setting an arm is judged by: its number, None where no trial has a score.

    places: where each trial lies in the space of its one key, from 0 to 1, on the scale in which it was searched.
    scores: None for a trial that was lost; it counts as the worst score seen. minimized: whether less is better.

    A trial is one training, so its score is noisy, and the highest of many is high by luck as well. That is why trials
    are compared by averages over their neighbours, weighted by a Gaussian with a standard deviation of NEAR. In
    simulated sweeps this halves what the luck of tuning costs, and keeps off rates at which some trainings diverge
    (benchmarks/README.md, "Claims of a fair sweep").
    """
    known = np.array([np.nan if score is None else -score if minimized else score for score in scores], dtype=float)
    if not len(known) or np.isnan(known).all():
        return None
    values = np.where(np.isnan(known), np.nanmin(known), known)
    at = np.asarray(places, dtype=float)
    weights = np.exp(-0.5 * ((at[:, None] - at) / NEAR) ** 2)
    averages = weights @ values / weights.sum(axis=1)
    return int(np.argmax(np.where(np.isnan(known), -np.inf, averages)))
