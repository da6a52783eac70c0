"""The report's arithmetic against SciPy's tests and plain references."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.report.statistics import difference, estimate, marginal, simultaneous

# no two values so close that a variance is rounding alone, of which neither side means anything
VALUES = st.lists(st.integers(-10_000, 10_000).map(lambda n: n / 1000), min_size=2, max_size=8, unique=True)


def by_seed(values):
    return dict(enumerate(values))


def near(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(VALUES, st.sampled_from([0.9, 0.95, 0.995]))
def test_an_estimate_is_scipys_interval_of_a_mean(values, confidence):
    found = estimate(values, confidence)
    interval = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert near((found.low, found.high), tuple(interval))
    assert near((found.mean, found.sd, found.count), (np.mean(values), np.std(values, ddof=1), len(values)))


@given(VALUES, VALUES, st.sampled_from([0.95, 0.99]))
def test_a_paired_difference_is_scipys(ours, theirs, confidence):
    count = min(len(ours), len(theirs))
    pairs = [round(a - b, 3) for a, b in zip(ours, theirs, strict=False)]
    found = difference(by_seed(ours), by_seed(theirs), confidence)
    assert found.paired or count < 2
    if len(set(pairs)) > 1:
        interval = stats.ttest_rel(ours[:count], theirs[:count]).confidence_interval(confidence)
        assert near((found.low, found.high), tuple(interval))
        p = stats.ttest_rel(ours[:count], theirs[:count]).pvalue
        if abs(p - (1 - confidence)) > 1e-9:
            assert found.within_noise == (p > 1 - confidence)
    assert (near(found.mean, np.mean(pairs)), found.count) == (True, count)


@given(VALUES, VALUES)
def test_without_shared_seeds_a_difference_is_welchs(ours, theirs):
    found = difference(by_seed(ours), {seed + 100: value for seed, value in enumerate(theirs)})
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert not found.paired
    assert near((found.low, found.high), tuple(interval))


def test_with_few_values_nothing_is_claimed():
    assert math.isnan(estimate([]).mean)
    one = estimate([0.5])
    assert (one.mean, one.count) == (0.5, 1)
    assert all(map(math.isnan, (one.sd, one.low, one.high)))
    for theirs in ({1: 0.25}, {2: 0.25}, {2: 0.25, 3: 0.5}):
        found = difference({1: 0.5}, theirs)
        assert not found.known
        assert not found.within_noise
    constant = difference({1: 0.5, 2: 0.5}, {3: 0.25, 4: 0.25})
    assert (constant.low, constant.mean, constant.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("comparisons", [1, 4, 19])
def test_simultaneous_intervals_hold_together(comparisons):
    """With no difference at all, the intervals of all comparisons hold zero in 95 of 100 sweeps, or more."""
    chance, sweeps = np.random.default_rng(0), 1500
    scores = chance.normal(size=(sweeps, comparisons + 1, 5))
    half = stats.t.ppf((1 + simultaneous(comparisons)) / 2, 4) / math.sqrt(5)
    pairs = scores[:, 1:] - scores[:, :1]
    holds = np.abs(pairs.mean(-1)) <= half * pairs.std(-1, ddof=1)
    assert 0.935 <= holds.all(1).mean() <= 1
    ours, theirs = (dict(enumerate(row)) for row in scores[0, :2])
    assert difference(theirs, ours, simultaneous(comparisons)).within_noise == holds[0, 0]


@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_marginal_means_are_those_of_a_pivot_table(values, others, seeds, chance):
    rows = [
        (f"v{value}", other, seed, chance.random())
        for value in range(values)
        for other in range(others)
        for seed in range(seeds)
    ]
    lost = chance.randrange(len(rows))
    for kept in (rows, rows[:lost] + rows[lost + 1 :]):
        wide = pd.DataFrame(kept, columns=["value", "other", "seed", "score"])
        wide = wide.pivot(index=["other", "seed"], columns="value", values="score").dropna()
        found, whole = marginal(kept)
        assert whole == (len(wide) > 0)
        for value in wide if whole else []:
            means = wide[value].groupby("seed").mean()
            assert near((found[value].mean, found[value].count), (means.mean(), len(means)))
            if len(means) > 1:
                assert near(found[value].sd, means.std())


def test_where_values_share_nothing_all_runs_count():
    found, whole = marginal([("a", 1, 0, 1.0), ("a", 2, 1, 3.0), ("b", 3, 0, 5.0)])
    assert not whole
    assert (found["a"].mean, found["b"].mean) == (2.0, 5.0)
