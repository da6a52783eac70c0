"""The answer in numbers: how each arm's tuned setting did on the test part, over fresh seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from normlab.report.compare import rank
from normlab.report.comparison import Comparison, Configuration
from normlab.report.fair.letters import groups, letters, told_apart
from normlab.report.fair.ranks import Ranks, ranks
from normlab.report.fair.sweep import Arm, FairSweep
from normlab.report.runs import Run
from normlab.report.settings import DATA_KEYS, Settings
from normlab.report.single.intervals import Interval, share

# What tuning adds to 1 / seeds in the variance of an arm's mean. The best of an arm's trials is chosen by noisy scores,
# and so its tuned setting is worse than the best one by chance: in simulated sweeps by a standard deviation of 0.1 to
# 0.3 of a single run's (benchmarks/README.md, "Claims of a fair sweep").
LUCK = 0.04


@dataclass(frozen=True)
class Standing:
    """Where an arm stands among those on its data.

    configuration: its fresh runs; their score is the test score. letters: two arms share one if they cannot be told
    apart; empty for an arm that is not compared. diverged: the share of its fresh runs that were lost, with its
    interval. lost_trials: how many of its trials were lost.
    """

    arm: Arm
    configuration: Configuration
    letters: str
    diverged: Interval
    lost_trials: int

    @property
    def seconds(self) -> float | None:
        """The mean training seconds of a fresh run."""
        return self.configuration.seconds

    @property
    def tuning_seconds(self) -> float:
        """The training seconds of all its trials together."""
        return sum(trial.run.seconds or 0.0 for trial in self.arm.trials if trial.run is not None)


@dataclass(frozen=True)
class Contest:
    """The arms on one data set, the best first; those without a fresh run's score last.

    told: for each two compared configurations whether they are told apart. groups: the places of those that cannot be.
    """

    comparison: Comparison
    standings: list[Standing]
    compared: list[Configuration]
    told: np.ndarray
    groups: list[list[int]]

    @property
    def best(self) -> Standing | None:
        best = self.comparison.best
        return next((standing for standing in self.standings if standing.configuration is best), None)

    def beaten(self, first: Standing) -> list[Standing]:
        """The arms that `first` leads by more than noise."""
        return [each for each in self._others(first) if self._apart(first, each)]

    def level(self, first: Standing) -> list[Standing]:
        """The compared arms that cannot be told from `first`."""
        return [each for each in self._others(first) if not self._apart(first, each)]

    def _others(self, first: Standing) -> list[Standing]:
        if first.configuration not in self.compared:
            return []
        return [each for each in self.standings if each is not first and each.configuration in self.compared]

    def _apart(self, one: Standing, other: Standing) -> bool:
        return bool(self.told[self.compared.index(one.configuration), self.compared.index(other.configuration)])


def tested_metric(score: str) -> str:
    """The test metric that belongs to a tuning score: `test/acc` of `val/acc`; `seconds` has none but itself."""
    return "test/" + score.partition("/")[2] if "/" in score else score


def contests(sweep: FairSweep) -> list[Contest]:
    """The arms that ran, apart for each data set, in the order of fair.json."""
    arms = [arm for arm in sweep.arms if arm.refused is None]
    keys = differing([arm.settings for arm in arms])
    by_data: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in arms:
        data = tuple((key, arm.settings[key]) for key in keys if key in DATA_KEYS)
        by_data.setdefault(data, []).append(arm)
    others = [key for key in keys if key not in DATA_KEYS]
    return [_contest(sweep, dict(data), others, members) for data, members in by_data.items()]


def differing(settings: Sequence[Settings]) -> list[str]:
    """The keys that do not have the same value everywhere; all keys of a single one."""
    keys = list(dict.fromkeys(key for each in settings for key in each))
    return [key for key in keys if len(settings) < 2 or len({each.get(key) for each in settings}) > 1]


def _contest(sweep: FairSweep, data: Settings, keys: list[str], arms: Sequence[Arm]) -> Contest:
    name = tested_metric(sweep.score)
    configurations = {}
    for arm in arms:
        runs = [tested(run, name) for run in arm.fresh]
        scores = {run.replicate: run.score for run in runs if run.score is not None}
        settings = {key: arm.settings.get(key, "") for key in keys}
        configurations[arm.name] = Configuration(settings, runs=runs, scores=scores)
    luck = LUCK if any(len(arm.trials) > 1 for arm in arms) else 0.0
    comparison = rank(data, keys, list(configurations.values()), luck)
    compared, told = told_apart(comparison)
    if not _noise_known(comparison):
        compared, told = [], np.empty((0, 0), dtype=bool)
    sets = groups(told) if len(compared) > 1 else []
    by_place = dict(zip(map(id, compared), letters(sets, len(compared)), strict=True))
    own = {id(configuration): arm for arm in arms if (configuration := configurations[arm.name])}
    standings = [_standing(own[id(each)], each, by_place.get(id(each), "")) for each in comparison.configurations]
    return Contest(comparison, standings, compared, told, sets)


def tested(run: Run, name: str) -> Run:
    """The same run with a test metric as its score, or with another figure that a search was for."""
    known = {"seconds": run.seconds, "parameters": run.parameters} | run.metrics
    return replace(run, score=known.get(name) if run.status == "finished" else None, score_name=name)


def _standing(arm: Arm, configuration: Configuration, letters: str) -> Standing:
    lost = len(configuration.lost)
    rate = share(lost, lost + len(configuration.scores))
    return Standing(arm, configuration, letters, rate, sum(trial.lost for trial in arm.trials))


def _noise_known(comparison: Comparison) -> bool:
    """Whether there are enough blocks to say anything about noise."""
    compared = [configuration for configuration in comparison.configurations if configuration.compared]
    return comparison.overlap is not None and min((c.score.count for c in compared), default=0) > 1


def ranked(contests: Sequence[Contest]) -> tuple[list[str], Ranks] | None:
    """The names of the arms without their data set, and their ranks over the data sets.

    Arms count that ran on every data set. On a data set an arm has its mean test score, where a lost run counts as the
    worst score seen there, and so has an arm whose runs were all lost. None where there is too little to rank.
    """
    by_data = [
        {each.configuration.label: _reached(contest.comparison, each.configuration) for each in contest.standings}
        for contest in contests
    ]
    names = [name for name in by_data[0] if all(name in reached for reached in by_data)] if by_data else []
    scores = np.array([[reached[name] for name in names] for reached in by_data]).reshape(len(by_data), len(names))
    if not np.isfinite(scores).all() or (result := ranks(scores)) is None:
        return None
    order = np.argsort(result.mean, kind="stable")
    return [names[place] for place in order], replace(result, mean=result.mean[order])


def _reached(comparison: Comparison, configuration: Configuration) -> float:
    """An arm's mean test score, higher is better; NaN where no fresh run has ended."""
    sign = -1 if comparison.minimized else 1
    every = [sign * score for each in comparison.configurations for score in each.scores.values()]
    values = [sign * score for score in configuration.scores.values()]
    values += [min(every, default=math.nan)] * len(configuration.lost)
    return float(np.mean(values)) if values else math.nan
