"""The space of a sweep: the values of its keys, read with Hydra's grammar, without torch and without Optuna."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from normlab.config.overrides import parse
from normlab.errors import ConfigError, show


@dataclass(frozen=True)
class Choices:
    """`a,b,c`, `choice(a,b,c)` or `glob(…)`: values without an order, as they were typed.

    tuned: `tag(tune,choice(a,b,c))`.
    """

    values: tuple[str, ...]
    tuned: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        return self.values

    @property
    def count(self) -> float:
        """How many values there are to choose from; infinity for all numbers of an interval."""
        return len(self.values)

    def __str__(self) -> str:
        return f"choice({','.join(self.values)})"


@dataclass(frozen=True)
class Numbers:
    """`interval(low,high)`, or `range(…)`, which has a step; both ends are included. log: `tag(log,interval(…))`."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        return repr(self.low), repr(self.high)

    @property
    def count(self) -> float:
        if self.step is None and not isinstance(self.low, int):
            return 1 if self.low == self.high else math.inf
        return round((self.high - self.low) / (self.step or 1)) + 1

    def __str__(self) -> str:
        if self.step is not None:
            return f"range({self.low},{self.high},{self.step})"
        return f"tag(log,interval({self.low},{self.high}))" if self.log else f"interval({self.low},{self.high})"


Space = dict[str, Choices | Numbers]

LOG, TUNE = "log", "tune"  # tags: of an interval, and of choices that are tuned within each arm of sweep=fair


@dataclass(frozen=True)
class Job:
    """One job of a plain sweep.

    overrides: all that it is composed from. chosen: the overrides among them that the sweep chose. config_hash: by
    which it is known. longer: with `extend=true`, the hash that it shares with the shorter run that it may train on.
    """

    overrides: tuple[str, ...]
    chosen: tuple[str, ...]
    config_hash: str
    longer: str | None = None


def search_space(
    typed: Sequence[str], params: Mapping[str, Any] | None, loader: ConfigLoader, tags: Collection[str] = ()
) -> tuple[list[str], Space]:
    """The overrides that all jobs have in common, and the values of each swept key.

    typed: the command line's. params: those of a yaml, under its `hydra.sweeper.params`; what is typed replaces them.
    tags: what choices may be tagged. Raises ConfigError where a key has nothing to choose from.
    """
    written = [f"{key}={value}" for key, value in (params or {}).items()]
    overrides = {override.get_key_element(): override for override in parse([*written, *typed], loader)}
    fixed = [str(override.input_line) for override in overrides.values() if not override.is_sweep_override()]
    return fixed, {key: _values(o, tags) for key, o in overrides.items() if o.is_sweep_override()}


def read_values(key: str, text: str) -> Choices | Numbers:
    """The values of a key, from what was typed for it. Raises ConfigError where that is no list, range or interval."""
    (override,) = parse([f"{key}={text}"])
    return _values(override, ())


def grid(space: Mapping[str, Choices | Numbers]) -> list[dict[str, Any]]:
    """Every combination of the values of a space without intervals."""
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*map(_all, space.values()))]


def jobs(fixed: list[str], space: Space) -> Iterator[list[str]]:
    """The jobs of a plain sweep, in Hydra's order. Raises ConfigError for an interval."""
    for key, values in space.items():
        if isinstance(values, Numbers) and values.step is None:
            raise ConfigError(f"{key}={values}: an interval is searched, by hydra/sweeper=optuna; or list its values")
    for values in grid(space):
        yield [*fixed, *(f"{key}={value}" for key, value in values.items())]


def probes(fixed: list[str], space: Space) -> Iterator[list[str]]:
    """Jobs that together have every choice and both ends of every interval; other keys have their first value."""
    first = {key: f"{key}={values.ends[0]}" for key, values in space.items()}
    yield [*fixed, *first.values()]
    for key, values in space.items():
        for value in values.ends[1:]:
            yield [*fixed, *(first | {key: f"{key}={value}"}).values()]


def _values(override: Override, of_choices: Collection[str]) -> Choices | Numbers:
    line, value, tags = override.input_line, override.value(), _tags(override, of_choices)
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = LOG in tags
        if value.start > value.end:
            raise ConfigError(f"{line}: the lower end {value.start} is above the upper end {value.end}")
        if log and value.start <= 0:
            raise ConfigError(f"{line}: a logarithm needs a lower end above 0")
        return Numbers(value.start, value.end, log=log)
    try:
        values = tuple(override.sweep_iterator())
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{line}: {error}") from error
    if not values:
        raise ConfigError(f"{line}: no value to choose")
    if isinstance(value, RangeSweep):
        ends = [plain(number) for number in (values[0], values[-1])]
        return Numbers(min(ends), max(ends), step=abs(value.step))
    strings = override.sweep_string_iterator()  # Hydra writes true as True
    texts = tuple(show(v) if isinstance(v, bool) else text for v, text in zip(values, strings, strict=True))
    kinds = [repr(each) for each in values]
    for number, each in enumerate(kinds):
        if each in kinds[:number]:
            raise ConfigError(f"{line}: {texts[number]} is there twice; list each value once")
    return Choices(texts, tuned=TUNE in tags)


def _tags(override: Override, of_choices: Collection[str]) -> set[str]:
    """What a key's values are tagged. Raises ConfigError for a tag that would mean nothing."""
    tags: set[str] = getattr(override.value(), "tags", set())
    if tags - ({LOG} if override.is_interval_sweep() else {*of_choices}):
        also = f", and {' or '.join(of_choices)}, of choices" if of_choices else ""
        raise ConfigError(f"{override.input_line}: the only tag is log, of an interval{also}")
    return tags


def _all(values: Choices | Numbers) -> Sequence[Any]:
    if isinstance(values, Choices):
        return values.values
    assert values.step is not None
    steps = round((values.high - values.low) / values.step)
    return [plain(values.low + number * values.step) for number in range(steps + 1)]


def plain(value: Any) -> int | float:
    """The number without rounding noise: 0.3 for 0.1 + 0.1 + 0.1."""
    return value if isinstance(value, int) else float(f"{value:.12g}")
