"""What the page of a fair sweep computes, against SciPy, networkx, published tables and slow plain references."""

import math
from itertools import combinations

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normlab.report.compare import rank
from normlab.report.comparison import Configuration
from normlab.report.fair.letters import groups, letters, told_apart
from normlab.report.fair.ranks import critical_difference, ranks
from normlab.report.fair.tuning import at_end, expected_best, leaders, width

# Demšar 2006, table 6: C4.5 with and without a minimal number of leaves (m) and confidence levels for pruning (cf)
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9754, 0.975],  # printed as 0.975 twice, and ranked 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)
NEMENYI = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]  # his table 5, for 2 to 10 classifiers

SCORES = st.lists(st.integers(0, 50).map(lambda n: n / 50), min_size=1, max_size=7)


@given(SCORES, st.booleans())
def test_the_expected_best_is_the_mean_over_all_subsets(scores, minimized):
    best = min if minimized else max
    plain = [np.mean([best(each) for each in combinations(scores, n)]) for n in range(1, len(scores) + 1)]
    assert expected_best(scores, minimized) == pytest.approx(plain)


def test_who_wins_at_many_trials_may_lose_at_few():
    """One arm is good everywhere, the other only at one rate in eight, and better there."""
    curves = {"easy": expected_best([0.9] * 8), "hard": expected_best([0.5] * 7 + [0.97])}
    turns = leaders(curves)
    assert [arms for arms, _, _ in turns] == [["easy"], ["hard"]]
    (_, first, last), (_, then, end) = turns
    assert (first, last + 1, end) == (1, then, 8)
    assert 0.5 + 0.47 * last / 8 < 0.9 <= 0.5 + 0.47 * then / 8  # a subset of n has the good rate with chance n / 8
    assert leaders({"b": [0.5, 0.4], "a": [0.5, 0.5, 0.1]}, minimized=True) == [(["b", "a"], 1, 1), (["b"], 2, 2)]


@pytest.mark.parametrize("seed", range(20))
def test_arms_share_a_letter_if_and_only_if_they_are_not_told_apart(seed):
    chance = np.random.default_rng(seed)
    count = int(chance.integers(1, 9))
    apart = np.triu(chance.random((count, count)) < chance.random(), 1)
    apart = apart | apart.T
    graph = networkx.Graph((a, b) for a, b in combinations(range(count), 2) if not apart[a, b])
    graph.add_nodes_from(range(count))
    found = groups(apart)
    assert found == sorted(sorted(clique) for clique in networkx.find_cliques(graph))
    named = [set(each.split()) for each in letters(found, count)]
    for a, b in combinations(range(count), 2):
        assert bool(named[a] & named[b]) != apart[a, b]


def test_ranks_are_those_that_demsar_published():
    found = ranks(DEMSAR)
    assert found.mean == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.p == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).pvalue)
    statistic = 12 * 14 / (4 * 5) * ((found.mean**2).sum() - 4 * 5**2 / 4)  # without SciPy's correction for ties
    assert statistic == pytest.approx(9.28, abs=5e-3)
    assert found.apart.tolist() == (np.abs(found.mean - found.mean[:, None]) > 1.25).tolist()


def test_critical_differences_are_those_of_the_published_table():
    for count, quantile in enumerate(NEMENYI, 2):
        assert critical_difference(count, 10) == pytest.approx(quantile * math.sqrt(count * (count + 1) / 60), rel=5e-4)


def test_few_data_sets_or_two_arms_are_not_ranked_and_equal_ones_not_told_apart():
    assert ranks(DEMSAR[:4]) is None
    assert ranks(DEMSAR[:, :2]) is None
    same = ranks(np.ones((6, 3)))
    assert (same.p, same.mean.tolist(), same.apart.any()) == (1.0, [2.0, 2.0, 2.0], False)


def test_equal_arms_are_seldom_told_apart_by_their_ranks():
    chance, sweeps = np.random.default_rng(0), 2000
    for arms, data in ((4, 5), (8, 12)):
        by_data = chance.random((sweeps, data, arms)).argsort(axis=2) + 1
        means = by_data.mean(axis=1)
        claims = (np.ptp(means, axis=1) > critical_difference(arms, data)).mean()
        assert claims <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps)


def comparison(scores, luck=0.0):
    names = [f"arm{number}" for number in range(len(scores))]
    by_seed = [{(seed, 0, 0): float(score) for seed, score in enumerate(row)} for row in scores]
    arms = [Configuration({"arm": name}, scores=each) for name, each in zip(names, by_seed, strict=True)]
    return rank({}, ["arm"], arms, luck)


@pytest.mark.parametrize("luck", [0.0, 0.03])
def test_every_pair_is_compared_by_tukeys_range_widened_for_the_luck_of_tuning(luck):
    bound = stats.studentized_range.isf(0.05, 4, 27)
    seen = set()
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(4, 10)) + np.array([[1.7], [0.6], [0.0], [0.0]])
        compared, told = told_apart(comparison(scores, luck))
        order = [int(each.settings["arm"][3:]) for each in compared]
        rest = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
        error = math.sqrt((rest**2).sum() / 27 * (1 / 10 + luck))
        means = scores.mean(1)[order]
        own = np.linalg.norm(rest, axis=1).max() > 2 * np.median(np.linalg.norm(rest, axis=1))
        if not own:  # no arm's spread is so large that it is compared by itself
            assert told.tolist() == (np.abs(means - means[:, None]) > bound * error).tolist()
            seen |= set(told[np.triu_indices(4, 1)].tolist())
    assert seen == {True, False}


RATES = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32]


@pytest.mark.parametrize(
    ("scores", "inner", "outer", "octaves", "good"),
    [
        ([0.5, 0.895, 0.90, 0.896, 0.7, None], (0.02, 0.08), (0.01, 0.16), (2, 4), 3),
        (
            [0.9, 0.895, 0.7, 0.9, 0.9, 0.9],
            (0.01, 0.02),
            (0.005, 0.04),
            (1, 3),
            2,
        ),  # one piece, around the first
        ([None, None, 0.9, None, 0.9, 0.2], (0.04, 0.04), (0.02, 0.08), (0, 2), 1),
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], (0.01, 0.32), (0.005, 0.64), (5, 7), 6),
        ([0.1, 0.1, 0.1, 0.891, 0.9, 0.8909], (0.08, 0.16), (0.04, 0.32), (1, 3), 2),  # 1 % of 0.9 is 0.009
    ],
)
def test_the_range_of_good_rates_lies_between_what_was_good_and_what_was_not(scores, inner, outer, octaves, good):
    chance = np.random.default_rng(0).permutation(6)
    found = width([RATES[n] for n in chance], [scores[n] for n in chance], (0.005, 0.64))
    assert (found.inner, found.outer, found.good, found.tried) == (inner, outer, good, 6)
    assert found.octaves() == pytest.approx(octaves)
    assert (found.open_low, found.open_high) == (outer[0] == 0.005, outer[1] == 0.64)
    lower = [None if score is None else 1 / score for score in scores]
    if 0.8909 not in scores:
        assert width(RATES, lower, (0.005, 0.64), minimized=True) == width(RATES, scores, (0.005, 0.64))


def test_without_a_score_there_is_no_range():
    assert width(RATES, [None] * 6, (0.005, 0.64)) is None


def test_a_setting_at_the_end_of_what_was_tried_is_told():
    assert [at_end(RATES, rate) for rate in (0.01, 0.04, 0.32)] == ["lowest", "", "highest"]
    assert at_end([0.01], 0.01) == ""
