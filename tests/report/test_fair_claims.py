"""How often a fair sweep claims what is not so, and what it finds: simulated from the trials to the page's letters."""

import itertools
import math
import sys

import pytest
from helpers.cases import ROOT, rest_slow

sys.path.append(str(ROOT / "benchmarks"))
from surrogates import KINDS, UNSEEN, rates


def error(rate, sweeps):
    return math.sqrt(rate * (1 - rate) / sweeps)


@pytest.mark.parametrize("sweeps", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", rest_slow(KINDS, lambda case: case[0] == next(iter(KINDS))))
def test_a_leader_by_two_deviations_is_told_from_all_three_others_at_the_defaults(kind, sweeps):
    found = rates(kind, 2.0, False, sweeps)
    assert found.told >= 0.8 - 2 * error(0.8, sweeps)


@pytest.mark.parametrize("sweeps", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", rest_slow(KINDS, lambda case: case[0] == next(iter(KINDS))))
def test_equal_arms_are_seldom_told_apart_at_the_defaults(kind, sweeps):
    found = rates(kind, 0.0, True, sweeps)
    assert found.claimed <= 0.05 + 2 * error(0.05, sweeps)
    assert found.shown > 0.4  # a grid of one seed shows a lead where there is none


@pytest.mark.parametrize(
    ("kind", "alike"),
    rest_slow(itertools.product(UNSEEN, (True, False)), lambda case: case == (next(iter(UNSEEN)), True)),
)
def test_on_curves_by_which_nothing_was_chosen_equal_arms_are_told_apart_as_the_page_says(kind, alike):
    assert rates(kind, 0.0, alike, 200).claimed <= 0.105 + 2 * error(0.105, 200)
