"""The rule of the laboratory: what it says of made-up results, and how often it is wrong."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import stats

from normlab.report.claims.verdict import Evidence, Finding, Observed, Verdict, effect, judge, verdict
from normlab.report.fair.standing import LUCK
from normlab.report.statistics import estimate

DIFFERENCE = {"with": 1.0, "without": -1.0}
HIGH, LOW = [0.95, 0.96, 0.94, 0.955, 0.945], [0.80, 0.82, 0.78, 0.81, 0.79]


def observed(values):
    """An arm's runs: a value, `None` for one that diverged, or why there is none yet."""
    values = dict(enumerate(values, 1))
    return Observed(
        {seed: value for seed, value in values.items() if isinstance(value, float)},
        frozenset(seed for seed, value in values.items() if value is None),
        tuple(value for value in values.values() if isinstance(value, str)),
    )


def evidence(name, guess=0.1, **arms):
    return Evidence(name, {arm.rstrip("_"): observed(values) for arm, values in arms.items()}, guess=guess)


def judged(*pairs, margin=0.02, least_seeds=5):
    return judge(pairs, [DIFFERENCE], margin, least_seeds)


CLEAR, OTHER_CLEAR = (evidence(name, with_=HIGH, without=LOW) for name in ("digits", "wine"))
NONE, OPPOSITE = evidence("iris", with_=HIGH, without=HIGH[::-1]), evidence("mnist", with_=LOW, without=HIGH)
NOISY = evidence("svhn", with_=[0.9, 0.5, 0.7, 0.95, 0.6], without=[0.5, 0.8, 0.6, 0.7, 0.75])


def test_the_effect_is_the_mean_contrast_of_each_seed_with_students_interval():
    found = effect(Evidence("digits", CLEAR.arms, floor=1e-5, overlap=LUCK), DIFFERENCE, 0.02)
    contrasts = np.array(HIGH) - np.array(LOW)
    half = stats.t.isf(0.025, 4) * contrasts.std(ddof=1) * math.sqrt(1 / 5 + LUCK)
    assert (found.estimate.low, found.estimate.high) == pytest.approx(
        (contrasts.mean() - half, contrasts.mean() + half)
    )
    assert found.finding is Finding.HOLDS
    equal = Evidence("digits", {"with": observed([0.9] * 5), "without": observed([0.8] * 5)}, floor=1e-5)
    half = stats.t.isf(0.025, 4) * math.sqrt(2e-5 / 5)  # the floor of each arm
    assert effect(equal, DIFFERENCE, 0.02).estimate.high == pytest.approx(0.1 + half)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ((CLEAR, OTHER_CLEAR), Verdict.SUPPORTED),
        ((NONE, OPPOSITE), Verdict.CONTRADICTED),
        ((CLEAR, OPPOSITE), Verdict.DEPENDS),
        ((CLEAR, NONE), Verdict.DEPENDS),
        ((CLEAR, NOISY), Verdict.INCONCLUSIVE),
        ((CLEAR, NOISY, OPPOSITE), Verdict.DEPENDS),
        ((NOISY, OPPOSITE), Verdict.INCONCLUSIVE),
    ],
)
def test_what_made_up_results_are_called(pairs, said):
    assert judged(*pairs).verdict is said
    assert judged(*pairs[::-1]).verdict is said


def test_pairs_on_both_sides_of_the_margin_need_not_differ():
    """One effect is known to be a little below the margin, the other is noisy and a little above it."""
    fails, holds = estimate([0.017, 0.019, 0.018, 0.017, 0.019]), estimate([0.01, 0.03, 0.02, 0.035, 0.01])
    assert fails.high < 0.02 <= holds.mean
    assert holds.low > 0
    assert verdict([holds, fails], 0.02) is Verdict.INCONCLUSIVE
    assert (
        stats.ttest_ind([0.01, 0.03, 0.02, 0.035, 0.01], [0.017, 0.019, 0.018, 0.017, 0.019], equal_var=False).pvalue
        > 0.05
    )


@pytest.mark.parametrize("shift", [0.9, 1.1])
def test_whether_pairs_differ_is_welchs_test_for_all_comparisons(shift):
    """The gap between them is a little below and a little above the one at which SciPy's test says so."""
    one, other = np.array([0.0, 0.02, -0.02, 0.01, -0.01]), np.array([0.0, 0.05, -0.05, 0.03, -0.03, 0.01, -0.01])
    gaps = np.linspace(0.02, 0.3, 5000)
    p = np.array([stats.ttest_ind(other + gap, one, equal_var=False).pvalue for gap in gaps[::50]])
    gap = shift * gaps[::50][p < 0.05 / 3][0]
    margin = one.mean() + stats.t.isf(0.025, 4) * one.std(ddof=1) / math.sqrt(5) + 1e-9  # just above `one`
    effects = [estimate(one), estimate(one), estimate(other + max(gap, margin))]
    wanted = stats.ttest_ind(other + max(gap, margin), one, equal_var=False).pvalue < 0.05 / 3
    assert (verdict(effects, margin) is Verdict.DEPENDS) == wanted


def test_half_a_design_has_no_verdict_and_says_what_is_lacking():
    begun = evidence("wine", with_=[*HIGH[:3], "to come", "not measured"], without=LOW)
    missing = Evidence("cifar10", {}, missing="there is no data/cifar10")
    few = evidence("iris", with_=HIGH[:3], without=LOW[:3])
    for pairs, lacks in [
        ((CLEAR, begun), ["fresh runs of wine: 1 to come, 1 not measured"]),
        ((CLEAR, OTHER_CLEAR, missing), ["cifar10 was not run: there is no data/cifar10"]),
        ((CLEAR, few), ["iris has 3 of the 5 seeds that the rule needs"]),
        ((CLEAR,), ["the rule needs 2 pairs of a data set and a network, and here is 1"]),
    ]:
        found = judged(*pairs)
        assert (found.verdict, found.lacks) == (Verdict.NONE, lacks)
    assert judged(CLEAR, begun).effects[1][0].finding is None
    assert judged(CLEAR, begun).effects[0][0].finding is Finding.HOLDS


def test_a_run_that_diverged_counts_as_a_network_that_has_learned_nothing():
    lost = evidence("digits", with_=HIGH, without=[None] * 5)
    found = effect(lost, DIFFERENCE, 0.02)
    assert found.estimate.mean == pytest.approx(np.mean(HIGH) - 0.1)
    assert (found.finding, found.diverged) == (Finding.HOLDS, 5)
    worse = evidence("digits", with_=HIGH, without=[None, 0.05, 0.06, 0.05, 0.06])
    assert effect(worse, DIFFERENCE, 0.02).estimate.mean == pytest.approx(np.mean(HIGH) - 0.054)


def test_by_a_measure_without_such_a_value_the_pair_is_unclear():
    lost = evidence("digits", guess=None, with_=HIGH, without=[*LOW[:4], None])
    found = effect(lost, DIFFERENCE, 0.02)
    assert (found.finding, found.diverged) == (Finding.UNCLEAR, 1)
    assert judged(lost, OTHER_CLEAR).verdict is Verdict.INCONCLUSIVE
    others = evidence("digits", guess=None, with_=HIGH, without=LOW, third=[None] * 5)
    assert effect(others, DIFFERENCE, 0.02).finding is Finding.HOLDS  # the lost arm has no part in it


SWEEPS = 200
NOISES = {
    "normal": lambda chance, size: chance.normal(size=size),
    "skewed": lambda chance, size: 1 - chance.exponential(size=size),
    "of 100 samples": lambda chance, size: (chance.binomial(100, 0.95, size) - 95) / math.sqrt(100 * 0.95 * 0.05),
}
ALIKE = 0.05 + 2 * math.sqrt(0.05 * 0.95 / SWEEPS)  # what 5 % may come to by chance


@cache
def rates(noise, seeds, size, spread, pairs=2):
    """The share of each verdict on an effect of `size` margins in all pairs. spread: of a run, in margins, or by pair.

    The interaction of two arms' scores is tested: what a seed does to both is cancelled, and each arm's tuned setting
    is worse than its best one by a normal deviate's size, 0.2 of a run's spread, which its fresh runs share.
    """
    chance, draw = np.random.default_rng([seeds, pairs, round(10 * np.max(spread))]), NOISES[noise]
    runs = draw(chance, (SWEEPS, pairs, 2, seeds)) - np.abs(chance.normal(0, 0.2, (SWEEPS, pairs, 2, 1)))
    contrasts = np.reshape(spread, (-1, 1)) * (runs[:, :, 0] - runs[:, :, 1]) + size
    said = [verdict([estimate(list(values), 0.0, LUCK) for values in sweep], 1.0) for sweep in contrasts]
    return {each: said.count(each) / SWEEPS for each in Verdict}


CASES = [(noise, seeds, spread) for noise in NOISES for seeds in (5, 10) for spread in (0.5, 3.0)]


@pytest.mark.parametrize(("noise", "seeds", "spread"), CASES)
def test_the_rule_is_seldom_wrong(noise, seeds, spread):
    assert rates(noise, seeds, 0.0, spread)[Verdict.SUPPORTED] <= 0.05
    assert rates(noise, seeds, 2.0, spread)[Verdict.CONTRADICTED] <= 0.05
    for size in (0.0, 0.75, 2.0):
        assert rates(noise, seeds, size, spread)[Verdict.DEPENDS] <= ALIKE


@pytest.mark.parametrize(("size", "spread"), [(0.5, 0.7), (0.9, 0.7), (0.9, (0.05, 0.8, 0.8, 0.8, 0.8))])
def test_many_pairs_that_are_alike_seldom_depend(size, spread):
    """Nor where one of them is known so well that it lies below the margin for sure."""
    assert rates("normal", 10, size, spread, pairs=5)[Verdict.DEPENDS] <= ALIKE


@pytest.mark.parametrize("noise", NOISES)
def test_what_is_there_is_found(noise):
    """An effect of twice the margin is found, and the lack of any, where runs spread by a third of the margin."""
    for seeds, power in ((5, 0.8), (10, 0.95)):
        assert rates(noise, seeds, 2.0, 0.3)[Verdict.SUPPORTED] >= power
        assert rates(noise, seeds, 0.0, 0.3)[Verdict.CONTRADICTED] >= power
