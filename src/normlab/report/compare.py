"""Configurations, ranked: what the tables, charts and sentences of the report are made of."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from normlab.report.runs import REPLICATES, Run
from normlab.report.settings import DATA_KEYS, Settings, settings_of
from normlab.report.statistics import Difference, Estimate, difference, estimate, simultaneous


@dataclass
class Configuration:
    """Runs that differ in their seeds only. scores: of the finished ones, by seed."""

    settings: Settings
    runs: list[Run] = field(default_factory=list)
    scores: dict[Hashable, float] = field(default_factory=dict)
    behind: Difference | None = None  # how far the best one is ahead, positive in the good direction
    tied: bool = False  # with the best one, after allowance for the number of comparisons
    repeated: int = 0  # runs whose seed had a score already: they are the same run once more

    @property
    def score(self) -> Estimate:
        return estimate(list(self.scores.values()))

    @property
    def bad(self) -> list[Run]:
        return [run for run in self.runs if not counts(run)]

    @property
    def seconds(self) -> float | None:
        return _mean([run.seconds for run in self.runs if run.status == "finished"])

    @property
    def parameters(self) -> int | None:
        return next((run.parameters for run in self.runs if run.parameters is not None), None)

    def metric(self, name: str) -> float | None:
        return _mean([run.metrics.get(name) for run in self.runs if run.status == "finished"])


@dataclass
class Comparison:
    """The runs on one data set. configurations: the best first, those without a score last."""

    data: Settings  # what tells it from the other data sets of the report; mostly empty
    score_name: str
    minimized: bool
    keys: list[str]
    configurations: list[Configuration]

    @property
    def runs(self) -> list[Run]:
        return [run for configuration in self.configurations for run in configuration.runs]

    @property
    def ranked(self) -> list[Configuration]:
        return [configuration for configuration in self.configurations if configuration.scores]

    @property
    def best(self) -> Configuration | None:
        return self.ranked[0] if self.ranked else None

    @property
    def confidence(self) -> float:
        """Of each interval by which configurations are called tied with the best, or not."""
        return simultaneous(len(self.ranked) - 1)

    @property
    def tests(self) -> list[str]:
        """The test metrics; the score's own first."""
        own = "test/" + self.score_name.partition("/")[2]
        names = {name for run in self.runs for name in run.metrics if name.startswith("test/")}
        return sorted(names, key=lambda name: (name != own, name))

    @property
    def replicates(self) -> list[str]:
        """Those of REPLICATES that differ between runs."""
        values = zip(*(run.replicate for run in self.runs), strict=True)
        return [key for key, seen in zip(REPLICATES, values, strict=True) if len(set(seen)) > 1]


def counts(run: Run) -> bool:
    """Whether a run has a score that counts: it came to its end, and the score is a number."""
    return run.score is not None


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Ranks the configurations among some runs, apart for each data set."""
    found = settings_of(runs)
    keys = list(found[0])
    groups: dict[tuple, dict[tuple, Configuration]] = {}
    for run, settings in zip(runs, found, strict=True):
        data = tuple((key, settings[key]) for key in keys if key in DATA_KEYS)
        rest = {key: settings[key] for key in keys if key not in DATA_KEYS}
        group = groups.setdefault(data, {})
        _add(group.setdefault(tuple(rest.items()), Configuration(rest)), run)
    own = [key for key in keys if key not in DATA_KEYS]
    return [_ranked(dict(data), own, list(group.values()), runs) for data, group in groups.items()]


def _add(configuration: Configuration, run: Run) -> None:
    configuration.runs.append(run)
    if run.score is None:
        return
    if run.replicate in configuration.scores:
        configuration.repeated += 1
    else:
        configuration.scores[run.replicate] = run.score


def _ranked(data: Settings, keys: list[str], found: list[Configuration], runs: Sequence[Run]) -> Comparison:
    name = next((run.score_name for run in runs if run.score_name is not None), "score")
    minimized = any(run.score_mode == "min" for run in runs)
    sign = 1 if minimized else -1
    found.sort(key=lambda c: (not c.scores, sign * c.score.mean if c.scores else 0))
    comparison = Comparison(data, name, minimized, keys, found)
    for configuration in comparison.ranked[1:]:
        best = comparison.ranked[0]
        configuration.behind = _ahead(best, configuration, minimized)
        allowed = _ahead(best, configuration, minimized, comparison.confidence)
        configuration.tied = not allowed.known or allowed.within_noise
    return comparison


def _ahead(best: Configuration, other: Configuration, minimized: bool, confidence: float = 0.95) -> Difference:
    one, two = (other, best) if minimized else (best, other)
    return difference(one.scores, two.scores, confidence)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None
