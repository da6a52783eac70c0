"""The points of a fair sweep, beside scipy's, and the spaces that they are drawn from."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import qmc

from normlab.config.space import Choices, Numbers
from normlab.sweeps.fair.points import points

KINDS = {
    "rate": Numbers(1e-3, 1.0, log=True),
    "share": Numbers(0.25, 0.75),
    "size": Numbers(3, 40),
    "width": Numbers(8, 512, log=True),
    "step": Numbers(0.1, 0.5, step=0.1),
    "word": Choices(("a", "b", "c")),
}


def cases() -> list[dict]:
    """Spaces of one to four keys of random kinds."""
    random = np.random.default_rng(7)
    names = [random.choice([*KINDS], size=random.integers(1, 5), replace=False) for _ in range(12)]
    return [
        {f"{'optimizer' if random.random() < 0.5 else 'model'}.{name}": KINDS[name] for name in each} for each in names
    ]


def quantile(values, value) -> tuple[float, float]:
    """The shares of a uniform draw that give a value."""
    if isinstance(values, Choices):
        place = values.values.index(value)
        return place / len(values.values), (place + 1) / len(values.values)
    if values.step is not None:
        place = round((value - values.low) / values.step)
        return place / 5, (place + 1) / 5
    if isinstance(values.low, int):
        shares = [(v - values.low) / (values.high + 1 - values.low) for v in (value, value + 1)]
        if values.log:
            shares = [math.log(v / values.low) / math.log((values.high + 1) / values.low) for v in (value, value + 1)]
        return shares[0], shares[1]
    share = (value - values.low) / (values.high - values.low)
    if values.log:
        share = math.log(value / values.low) / math.log(values.high / values.low)
    return share - 1e-3, share + 1e-3


@pytest.mark.parametrize("space", cases(), ids=lambda space: ",".join(space))
def test_points_are_scipys_and_do_not_depend_on_how_many_there_are(space):
    drawn = [*itertools.islice(points(space), 9)]
    assert drawn[:4] == [*itertools.islice(points(space), 4)]
    assert len({tuple(point.items()) for point in drawn}) == len(drawn)
    keys = [*drawn[0]]
    assert {*keys} == {*space}
    shares = iter(qmc.Halton(len(keys), rng=0).random(200))  # points that were drawn before are left out
    for point in drawn:
        assert any(_gives(space, point, keys, share) for share in shares)


def _gives(space, point, keys, share) -> bool:
    ends = [quantile(space[key], point[key]) for key in keys]
    return all(low <= each < high + 1e-12 for (low, high), each in zip(ends, share, strict=True))


def test_arms_share_the_values_of_the_keys_that_their_spaces_begin_with():
    rate = {"optimizer.lr": KINDS["rate"]}
    more = {"norm.size": KINDS["size"], **rate}
    alone, both = (list(itertools.islice(points(space), 16)) for space in (rate, more))
    assert [point["optimizer.lr"] for point in both] == [point["optimizer.lr"] for point in alone]


def test_a_finite_space_ends_after_its_last_point():
    space = {"a": KINDS["word"], "b": Numbers(1, 4)}
    assert sorted(tuple(point.values()) for point in points(space)) == [*itertools.product("abc", range(1, 5))]
