"""A network that is made ill in one way gets that diagnosis, and one that is well gets none."""

import sys

import pytest
from helpers.cases import ROOT, rest_slow

sys.path.append(str(ROOT / "benchmarks"))
from patients import DATA, DEGREES, NETWORKS, PITFALLS, well

LONG = ("batch_too_small", "accumulation", "overfitting")  # they train for seconds


def cases():
    return [(code, kind, data) for code in PITFALLS for kind in NETWORKS for data in DATA]


@pytest.mark.parametrize(
    ("code", "kind", "data"),
    rest_slow(cases(), lambda case: case[1:] == ("dense", "wine") and case[0] not in LONG),
    ids=str,
)
def test_what_is_broken_on_purpose_is_found(code, kind, data):
    made = PITFALLS[code](kind, data, DEGREES - 1).diagnosis()
    assert code in [finding.code for finding in (*made.findings, *made.notes)]


@pytest.mark.parametrize(
    ("kind", "data"),
    rest_slow([(kind, data) for kind in NETWORKS for data in DATA], lambda case: case[1] == "wine"),
)
def test_a_network_that_is_well_gets_one_line(kind, data):
    made = well(kind, data).diagnosis()
    assert (made.findings, made.notes) == ([], [])
    assert "\n" not in str(made)
    assert made.healthy
