"""Checks types and ranges of configuration values without importing torch.

A value's type comes from the default in its yaml file. The comment behind it adds in brackets what a default cannot
say: ranges, words, and whether it may be null.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normlab.config.hints import value_hint
from normlab.config.interval import EXPECTED, is_interval
from normlab.errors import ConfigError, show


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `open_low` and `open_high` leave out the ends, `whole` all but integers."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = "" if math.isinf(self.low) else f" {'above' if self.open_low else 'of at least'} {self.low}"
        high = "" if math.isinf(self.high) else f" {'below' if self.open_high else 'of at most'} {self.high}"
        return kind + low + (" and" if low and high else "") + high


class Words(tuple[Any, ...]):
    """Exactly these values, such as words, true, false and null."""

    def allows(self, value: Any) -> bool:
        return any(type(value) is type(word) and value == word for word in self)

    def __str__(self) -> str:
        return " or ".join(show(word) for word in self)


class Intervals:
    """Texts that say how often something is done."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and is_interval(value)

    def __str__(self) -> str:
        return EXPECTED


NULL = Words([None])

Rules = tuple[Range | Words | Intervals, ...]  # a value has to fit one of them

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_value(key: str, value: Any, default: Any, rules: Rules | None = None) -> None:
    """Raises ConfigError where the value of `key` fits none of its rules, or, without rules, not its default's type.

    Interpolations (`${...}`) and mandatory values (`???`) are left to Hydra.
    """
    if isinstance(value, str) and ("${" in value or value == "???"):
        return
    if rules is not None:
        if not any(rule.allows(value) for rule in rules):
            raise ConfigError(f"{key}={show(value)}: expected {' or '.join(map(str, rules))}{value_hint(key, value)}")
    elif not _same_type(value, default):
        raise ConfigError(f"{key}={show(value)}: expected {_type_name(default)}")


def _same_type(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    for kind in (str, Mapping, Sequence):
        if isinstance(default, kind):
            return isinstance(value, kind) and isinstance(value, str) == isinstance(default, str)
    return type(value) is type(default)


def _type_name(default: Any) -> str:
    if isinstance(default, Mapping):
        return "an option or its keys"
    return TYPES.get(type(default), "a list, such as [a,b]")
