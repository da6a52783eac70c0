"""Which trial of an arm is its tuned setting, against averages that are written out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normlab.config.space import Choices, Numbers
from normlab.sweeps.tuned import NEAR, tuned

RATE = {"optimizer.lr": Numbers(0.001, 1.0, log=True)}
SCORES = st.none() | st.integers(0, 50)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), SCORES), min_size=1, max_size=8), st.booleans())
def test_the_tuned_trial_has_the_best_average_over_its_neighbours(trials, minimized):
    places, scores = [place / 100 for place, _ in trials], [score for _, score in trials]
    points = [{"optimizer.lr": 0.001 * 1000**place} for place in places]
    chosen = tuned(RATE, points, scores, minimized)
    known = [score for score in scores if score is not None]
    if not known:
        assert chosen is None
        return
    filled = [(max(known) if minimized else min(known)) if score is None else score for score in scores]

    def average(place):
        weights = [math.exp(-((place - other) ** 2) / (2 * NEAR**2)) for other in places]
        return np.average(filled, weights=weights)

    averages = [average(place) for place, score in zip(places, scores, strict=True) if score is not None]
    assert scores[chosen] is not None
    assert average(places[chosen]) == pytest.approx(min(averages) if minimized else max(averages))


def test_one_lucky_trial_beside_the_cliff_does_not_win():
    rates = np.geomspace(0.001, 1, 17)[::2]
    scores = [0.5, 0.6, 0.8, 0.90, 0.91, 0.90, 0.85, 0.93, None]
    assert tuned(RATE, [{"optimizer.lr": rate} for rate in rates], scores) == 4


def test_trials_of_other_choices_are_no_neighbours():
    """At 0.1 `sgd` has a better neighbourhood, but in each choice there is one trial alone."""
    space = {"optimizer": Choices(("sgd", "adamw"), tuned=True), "optimizer.lr": Numbers(0.01, 1.0, log=True)}
    points = [{"optimizer": name, "optimizer.lr": rate} for name in ("sgd", "adamw") for rate in (0.01, 1.0)]
    assert tuned(space, points, [0.9, 0.9, 0.1, 0.91]) == 3
    near = [{"optimizer": name, "optimizer.lr": 0.1} for name in ("sgd", "adamw")]
    assert tuned(space, near, [0.5, 0.6]) == 1
