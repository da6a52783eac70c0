"""How often something is done: after a time, or after a number of optimizer steps."""

import re
from dataclasses import dataclass

SECONDS = {"s": 1, "min": 60, "h": 3600}
TEXT = re.compile(r"(?P<count>[1-9]\d*) ?(?P<unit>s|min|h|steps?)")
EXPECTED = "a time such as 90s, 10min or 2h, or steps such as 500steps"


@dataclass(frozen=True)
class Interval:
    """Either `seconds` or `steps`; the other one is None."""

    seconds: float | None = None
    steps: int | None = None


def is_interval(text: str) -> bool:
    return TEXT.fullmatch(text) is not None


def parse_interval(text: str) -> Interval:
    """What a person wrote, such as 10min or 500steps; its form has been checked."""
    parts = TEXT.fullmatch(text)
    assert parts is not None
    count, unit = int(parts["count"]), parts["unit"]
    return Interval(steps=count) if unit.startswith("step") else Interval(seconds=count * SECONDS[unit])
