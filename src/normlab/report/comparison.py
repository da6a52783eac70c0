"""What a report compares: configurations of runs, and the comparison of those on one data set."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from normlab.folder.identity import REPLICATES
from normlab.report.blocks import Blocks, resolution
from normlab.report.differences import Difference
from normlab.report.runs import Run
from normlab.report.settings import DIGITS, Settings
from normlab.report.statistics import INF, Estimate, estimate

SHARES = ("acc", "f1", "auroc")  # scores from 0 to 1
EQUAL = 1e-7  # means that differ by no more count as equal: scores are rounded to single precision


@dataclass(eq=False)
class Configuration:
    """Runs that differ only in their seeds, or in parts of the data.

    scores: those of the finished runs, by replicate. lost: the replicates whose run failed. score: the mean over the
    blocks by which it is compared, or over all that it has. compared: whether it is compared with others on the same
    blocks. behind: how far the best one is ahead of it; positive means that it is worse. label: its settings in few
    words, which no other configuration of the comparison has.
    """

    settings: Settings
    label: str = ""
    runs: list[Run] = field(default_factory=list)
    scores: dict[tuple[Any, ...], float] = field(default_factory=dict)
    score: Estimate = field(default_factory=lambda: estimate([]))
    compared: bool = False
    behind: Difference | None = None
    tied: bool = False  # the best one's lead over it is not more than noise
    repeated: int = 0  # how many runs repeat another run's replicate; they count once

    @property
    def lost(self) -> set[tuple[Any, ...]]:
        return {run.replicate for run in self.runs if run.lost} - self.scores.keys()

    @property
    def bad(self) -> list[Run]:
        return [run for run in self.runs if not counts(run)]

    @property
    def seconds(self) -> float | None:
        return finite_mean([run.seconds for run in self.runs if run.status == "finished"])

    @property
    def parameters(self) -> int | None:
        return next((run.parameters for run in self.runs if run.parameters is not None), None)

    def metric(self, name: str, blocks: Blocks) -> Estimate:
        """A metric over the same runs as the score."""
        values: dict[tuple[Any, ...], float] = {}
        for run in self.runs:
            if counts(run) and name in run.metrics:
                values.setdefault(run.replicate, run.metrics[name])
        whole = self.compared and bool(blocks.shared) and values.keys() >= set(blocks.shared)
        return estimate(blocks.means(values, only_shared=whole))


@dataclass
class Comparison:
    """The runs on one data set. configurations: the best first, those without a score last.

    best: None where several share the first place, or nothing has a score. samples: how many the part of the data has
    that the score was measured on. overlap: what is added to 1 / blocks in the variance of a mean, see blocks.py.
    digits: of numbers in labels, which tell all configurations apart.
    """

    data: Settings  # the settings that differ from the report's other data sets; mostly empty
    score_name: str
    minimized: bool
    keys: list[str]
    configurations: list[Configuration]
    blocks: Blocks
    samples: int | None
    objectives: list[str]
    searched: bool
    overlap: float | None
    digits: int = DIGITS
    best: Configuration | None = None
    paired: bool = True

    @property
    def runs(self) -> list[Run]:
        return [run for configuration in self.configurations for run in configuration.runs]

    @property
    def ranked(self) -> list[Configuration]:
        return [configuration for configuration in self.configurations if configuration.scores]

    @property
    def first(self) -> list[Configuration]:
        """The best one, or all that share the first place."""
        if self.best is not None or not self.ranked:
            return [self.best] if self.best is not None else []
        top = self.ranked[0]
        return [c for c in self.ranked if c.compared == top.compared and abs(c.score.mean - top.score.mean) <= EQUAL]

    @cached_property
    def tests(self) -> list[str]:
        """The names of the test metrics, the score's own first."""
        first = "test/" + self.score_name.partition("/")[2]
        names = {name for run in self.runs for name in run.metrics if name.startswith("test/")}
        return sorted(names, key=lambda name: (name != first, name))

    @property
    def replicates(self) -> list[str]:
        """The keys among REPLICATES that differ between runs."""
        values = zip(*(run.replicate for run in self.runs), strict=True)
        return [key for key, seen in zip(REPLICATES, values, strict=True) if len(set(seen)) > 1]

    @property
    def is_share(self) -> bool:
        return self.score_name.rpartition("/")[2] in SHARES

    @cached_property
    def floor(self) -> float:
        """The least variance of a score: an accuracy over n samples is known to 1/n only, evenly spread within that."""
        if not self.score_name.endswith("/acc"):
            return 0.0
        every = (score for configuration in self.configurations for score in configuration.scores.values())
        return resolution(every, self.samples) ** 2 / 12

    def estimate(self, values: Sequence[float], overlapping: float = 0.0) -> Estimate:
        """A mean score and its interval, within the bounds of the score."""
        return estimate(values, self.floor, overlapping, (0.0, 1.0) if self.is_share else (-INF, INF))


def with_settings(comparisons: Sequence[Comparison]) -> list[tuple[Run, Settings]]:
    """Each run with all settings that differ, in the order of the configurations."""
    return [
        (run, each.data | configuration.settings)
        for each in comparisons
        for configuration in each.configurations
        for run in configuration.runs
    ]


def counts(run: Run) -> bool:
    """Whether a run has a score that counts: it came to its end, and the score is a number."""
    return run.score is not None


def finite_mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known and finite; None where nothing is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None
