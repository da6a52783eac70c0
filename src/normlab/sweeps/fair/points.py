"""The quasi-random points of a space: the same for every arm with that space, however many are taken."""

import math
from collections.abc import Iterator
from typing import Any

from normlab.config.space import Choices, Numbers, Space, plain

SEED = 0  # scrambles the sequence; the same for all sweeps, so that point k is a fact that anybody can repeat
DIGITS = 4  # significant digits of a value that is drawn from an interval


def points(space: Space) -> Iterator[dict[str, Any]]:
    """The different points of a space, in the order of the scrambled Halton sequence.

    A key's dimension is its place among the keys of the space, those of the optimizer first and each by name. Spaces
    that begin with the same keys therefore have the same values of these, whatever one of them has besides. A finite
    space ends after its last point.

    Owen, A randomized Halton algorithm in R, 2017, arXiv:1706.02808.
    """
    from scipy.stats.qmc import Halton  # takes a second to import

    keys = sorted(space, key=lambda key: (not key.startswith("optimizer."), key))
    sequence = Halton(len(keys), scramble=True, rng=SEED)
    seen: set[tuple[Any, ...]] = set()
    while len(seen) < math.prod(space[key].count for key in keys):
        values = tuple(
            value_at(space[key], float(share)) for key, share in zip(keys, sequence.random()[0], strict=True)
        )
        if values not in seen:
            seen.add(values)
            yield dict(zip(keys, values, strict=True))


def value_at(values: Choices | Numbers, share: float) -> Any:
    """The value at a share, from 0 to below 1, of the way through a key's values."""
    if isinstance(values, Choices):
        return values.values[int(share * len(values.values))]
    if values.step is not None:
        return plain(values.low + int(share * values.count) * values.step)
    whole = isinstance(values.low, int)
    low, high = values.low, values.high + whole  # each whole number has its share, the last one too
    drawn = low * (high / low) ** share if values.log else low + share * (high - low)
    return shortened(values, int(drawn) if whole else drawn)


def shortened(values: Choices | Numbers, value: Any) -> Any:
    """A drawn value with fewer digits where it is of an interval, and not outside of that."""
    if isinstance(values, Choices) or values.step is not None:
        return value
    kept = value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
    return min(max(kept, values.low), values.high)
