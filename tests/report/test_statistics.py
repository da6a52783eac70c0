"""The report's arithmetic against SciPy's tests and plain references, and its claims against simulated sweeps."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.cases import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normlab.report.blocks import components, resolution
from normlab.report.differences import behind, behind_unpaired
from normlab.report.statistics import estimate, marginal, sampling_error

sys.path.append(str(ROOT / "benchmarks"))
import claims

# no two values so close that a variance is rounding alone, of which neither side means anything
NUMBER = st.integers(-10_000, 10_000).map(lambda n: n / 1000)
VALUES = st.lists(NUMBER, min_size=2, max_size=8, unique=True)


def near(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(VALUES)
def test_an_estimate_is_scipys_interval_of_a_mean(values):
    found = estimate(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert near((found.low, found.high), tuple(interval))
    assert near((found.mean, found.sd, found.count), (np.mean(values), np.std(values, ddof=1), len(values)))


@given(st.lists(st.integers(0, 27), min_size=2, max_size=6))
def test_no_interval_of_an_accuracy_is_a_point_or_leaves_zero_to_one(counts):
    values = [count / 27 for count in counts]
    found = estimate(values, floor=1 / 27**2 / 12, bounds=(0.0, 1.0))
    assert 0 <= found.low < found.high <= 1
    assert found.low <= found.mean <= found.high


@settings(deadline=None, max_examples=40)  # SciPy takes half a second for a quantile that it has not had before
@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_two_configurations_are_compared_by_the_paired_t_test(blocks, seed):
    scores = np.random.default_rng(seed).normal(size=(2, blocks))
    best = int(scores.mean(1).argmax())
    found = behind(scores, best)[1 - best]
    interval = stats.ttest_rel(scores[best], scores[1 - best]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (10, 5)])
def test_many_are_compared_by_tukeys_range_in_a_two_way_layout(shape):
    """Against a least-squares fit of configurations and blocks, by SciPy's distribution of the studentized range."""
    count, blocks = shape
    columns = np.array([[*np.eye(count)[i], *np.eye(blocks)[j]] for i in range(count) for j in range(blocks)])
    freedom = count * blocks - np.linalg.matrix_rank(columns)
    bound = stats.studentized_range.isf(0.05, count, freedom)
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(size=shape) + np.arange(blocks)
        best = int(scores.mean(1).argmax())
        fitted = columns @ np.linalg.lstsq(columns, scores.ravel(), rcond=None)[0]
        error = math.sqrt(((scores.ravel() - fitted) ** 2).sum() / freedom / blocks)
        for place, found in enumerate(behind(scores, best)):
            if place == best or found.own:
                continue
            assert found.told_apart == (found.mean / error > bound)
            assert (found.mean - found.low) / error == pytest.approx(bound, rel=1e-6)


def test_configurations_without_shared_blocks_are_compared_as_games_and_howell_do():
    chance = np.random.default_rng(0)
    groups = [chance.normal(number, 1 + number, size) for number, size in enumerate((4, 4, 7))]
    best = int(np.argmax([group.mean() for group in groups]))
    interval = stats.tukey_hsd(*groups, equal_var=False).confidence_interval(0.95)
    for place, found in enumerate(behind_unpaired(groups, best)):
        if place != best:
            ends = interval.low[best, place], interval.high[best, place]
            assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)


def test_with_few_values_nothing_is_claimed():
    assert math.isnan(estimate([]).mean)
    one = estimate([0.5])
    assert (one.mean, one.count) == (0.5, 1)
    assert all(map(math.isnan, (one.sd, one.low, one.high)))
    for found in (behind(np.array([[0.5], [0.25]]), 0)[1], behind_unpaired([np.array([0.5]), np.ones(2) / 4], 0)[1]):
        assert not found.known
        assert not found.told_apart


@settings(deadline=None, max_examples=40)
@given(st.just(3), st.integers(2, 3), st.integers(0, 27), st.integers(0, 27))
def test_equal_scores_are_a_lead_of_a_width(count, blocks, high, low):
    """Every seed gives the same score, which is as exact as its samples are many."""
    scores = np.full((count, blocks), low / 27)
    scores[0] = high / 27
    for found in behind(scores, int(high < low), 1 / 27**2 / 12)[1 + (high < low) :]:
        assert found.high - found.low > 0


def test_an_unstable_configuration_does_not_drown_the_others():
    chance = np.random.default_rng(1)
    scores = chance.normal(size=(6, 5)) + np.array([[8.0], [0], [0], [0], [0], [0]])
    scores[5] = chance.normal(-100, 200, 5)
    found = behind(scores, 0)
    assert [each.told_apart for each in found[1:]] == [True] * 4 + [False]
    assert found[5].own
    crowned = behind(scores, 5)
    assert all(each.own for each in crowned[:5])


def test_overlapping_parts_of_the_data_widen_by_nadeau_and_bengio():
    scores = np.random.default_rng(0).normal(size=(4, 5))
    plain, widened = behind(scores, 0)[1], behind(scores, 0, overlap=0.25)[1]
    assert (widened.high - widened.low) / (plain.high - plain.low) == pytest.approx(
        math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    )


@pytest.mark.parametrize("noise", claims.NOISES)
def test_noise_is_seldom_called_a_lead(noise):
    """At most 5 % of sweeps, 7 % with an unstable configuration, and three standard errors of this simulation."""
    allowed = 0.07 if "spread" in noise else 0.05
    for count, blocks in claims.CELLS:
        rate, sweeps = claims.false_claims(noise, count, blocks, 250), 250
        assert rate <= allowed + 3 * math.sqrt(allowed * (1 - allowed) / sweeps), (count, blocks)


@pytest.mark.slow
@pytest.mark.parametrize("noise", claims.NOISES)
def test_noise_is_seldom_called_a_lead_in_the_long_run(noise):
    allowed = 0.07 if "spread" in noise else 0.05
    for count, blocks in ((2, 2), (3, 3), (10, 2), (10, 5), (20, 3), (20, 10)):
        rate = claims.false_claims(noise, count, blocks, 1000)
        assert rate <= allowed + 3 * math.sqrt(allowed * (1 - allowed) / 1000), (count, blocks)


def test_a_leader_by_three_deviations_is_told_from_all_nine_others():
    assert claims.told_from_all(10, 5, 400) >= 0.6 - 2 * math.sqrt(0.6 * 0.4 / 400)


@pytest.mark.parametrize(("folds", "parts", "seeds"), [(True, 5, 3), (False, 5, 3)])
def test_two_equal_learners_are_seldom_told_apart_by_parts_of_one_data_set(folds, parts, seeds):
    """Trained and measured for each part; runs taken for independent claim far more."""
    naive, _, rate = claims.false_claims_of_parts(folds, parts, seeds, 200)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert naive > 0.15


def test_the_sampling_error_is_that_of_two_binomial_shares():
    chance = np.random.default_rng(0)
    leads = (chance.binomial(270, 0.96, 20_000) - chance.binomial(270, 0.9, 20_000)) / 270
    assert np.quantile(np.abs(leads - 0.06), 0.95) == pytest.approx(sampling_error(0.96, 0.9, 270), rel=0.05)


def test_the_step_of_an_accuracy():
    assert resolution([0.5, 1.0], 10) == 0.1
    assert resolution([26 / 27, 25 / 27, 1.0], None) == pytest.approx(1 / 27)
    assert resolution([1.0, 1.0], None) == 0.0


@given(st.lists(st.sets(st.integers(0, 8), max_size=3), max_size=6))
def test_components_hang_together(found):
    """Against a walk over shared elements."""
    groups = components(found)
    assert sorted(place for group in groups for place in group) == list(range(len(found)))
    for group in groups:
        reached, rest = found[group[0]], set(group)
        for _ in group:
            for place in list(rest):
                if place == group[0] or found[place] & reached:
                    reached, rest = reached | found[place], rest - {place}
        assert not rest
        assert not any(found[place] & reached for place in range(len(found)) if place not in group)


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
