"""The keys that an arm's trials are drawn over."""

from functools import cache

from normlab.config.space import Choices, Numbers, read_values
from normlab.report.fair.sweep import Arm, FairSweep

RATE = "optimizer.lr"


@cache
def read_space(key: str, text: str) -> Choices | Numbers:
    """The values that a key was searched in, from the words in fair.json."""
    return read_values(key, text)


def within(key: str, text: str) -> str:
    """Where a key was searched: `from 0.001 to 1 (log)`."""
    space = read_space(key, text)
    if isinstance(space, Choices):
        return f"among {', '.join(space.values)}"
    return f"from {space.low:g} to {space.high:g}{' (log)' if space.log else ''}"


def shown_key(sweep: FairSweep) -> str | None:
    """The key that scores are drawn against: the learning rate, else the first number that an arm tunes."""
    keys = dict.fromkeys(key for arm in sweep.arms for key in _numbers(arm))
    return RATE if RATE in keys else next(iter(keys), None)


def only_key(arm: Arm) -> str | None:
    """The key of an arm that tunes one number alone, so that its scores are a curve over it; None for other arms."""
    return next(iter(_numbers(arm)), None) if len(arm.space) == 1 else None


def _numbers(arm: Arm) -> dict[str, Numbers]:
    spaces = {key: read_space(key, text) for key, text in arm.space.items()}
    return {key: space for key, space in spaces.items() if isinstance(space, Numbers)}


def numbers_of(arm: Arm, key: str) -> Numbers | None:
    """The interval of a key that an arm tunes; None where it does not, or where the key has no numbers."""
    return _numbers(arm).get(key)
