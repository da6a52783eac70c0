"""Ranks configurations; the tables, charts and sentences of the report show what this finds."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from normlab.report import sought
from normlab.report.blocks import components, overlap, pessimistic, shared_blocks, unit_of
from normlab.report.comparison import EQUAL, Comparison, Configuration, counts, finite_mean
from normlab.report.differences import Difference, behind, behind_unpaired
from normlab.report.runs import Run
from normlab.report.settings import DATA_KEYS, Settings, label, settings_of, telling_digits
from normlab.report.statistics import Estimate


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """Ranks the configurations of some runs, apart for each data set, and for parts of one that share nothing."""
    settings_by_run = settings_of(runs)
    keys = list(settings_by_run[0])
    groups: dict[tuple, dict[tuple, Configuration]] = {}
    for run, settings in zip(runs, settings_by_run, strict=True):
        data = tuple((key, settings[key]) for key in keys if key in DATA_KEYS)
        rest = {key: settings[key] for key in keys if key not in DATA_KEYS}
        group = groups.setdefault(data, {})
        _add(group.setdefault(tuple(rest.items()), Configuration(rest)), run)
    varied = [key for key in keys if key not in DATA_KEYS]
    return [
        rank(dict(data) | part, varied, members)
        for data, group in groups.items()
        for part, members in _parts(list(group.values()))
    ]


def _add(configuration: Configuration, run: Run) -> None:
    configuration.runs.append(run)
    if run.score is None:
        return
    if run.replicate in configuration.scores:
        configuration.repeated += 1
    else:
        configuration.scores[run.replicate] = run.score


def _parts(configurations: list[Configuration]) -> Iterable[tuple[Settings, list[Configuration]]]:
    """Groups of configurations linked by parts of the data that they share, each with the settings of its part."""
    parts = [{run.replicate[1:] for run in configuration.runs} for configuration in configurations]
    groups = components(parts)
    for places in groups:
        split, fold = next(iter(min((parts[place] for place in places), key=len)))
        named = {"data.split_seed": str(split), "data.fold": str(fold)} if len(groups) > 1 else {}
        yield named, [configurations[place] for place in places]


def rank(data: Settings, keys: list[str], configurations: list[Configuration], luck: float = 0.0) -> Comparison:
    """Compares configurations whose runs were on the same data.

    data: its settings. keys: in which the configurations differ. luck: what is added to 1 / blocks in the variance of a
    mean, as each configuration's settings were chosen by noisy scores.
    """
    runs = [run for configuration in configurations for run in configuration.runs]
    name = next((run.score_name for run in runs if run.score_name is not None), "score")
    minimized = any(run.score_mode == "min" for run in runs)
    part = name.partition("/")[0]
    samples = {run.samples[part] for run in runs if part in run.samples}
    unit = unit_of(runs)
    whole = [configuration for configuration in configurations if configuration.scores and not configuration.lost]
    blocks, places = shared_blocks(unit, [configuration.scores for configuration in whole])
    compared = [whole[place] for place in places]
    size = samples.pop() if len(samples) == 1 else None
    between = overlap(unit, runs, part)
    between = None if between is None else between + luck
    objectives, searched = sought.objectives(runs), sought.is_search(runs)
    comparison = Comparison(
        data,
        name,
        minimized,
        keys,
        configurations,
        blocks,
        size,
        objectives,
        searched,
        between,
        paired=bool(blocks.shared),
        digits=telling_digits([configuration.settings for configuration in configurations]),
    )
    chosen = {id(configuration) for configuration in compared}
    for configuration in configurations:
        configuration.label = label(configuration.settings, comparison.digits)
        configuration.compared = id(configuration) in chosen
        shared = configuration.compared and bool(blocks.shared)
        means = blocks.means(configuration.scores, only_shared=shared)
        known = configuration.compared and between is not None
        configuration.score = comparison.estimate(means, between or 0.0)
        if not known:
            configuration.score = _without_interval(configuration.score)
    _order(comparison)
    _tell_apart(comparison)
    return comparison


def lags(comparison: Comparison, first: Configuration) -> list[tuple[Configuration, Difference]]:
    """How far each compared configuration is behind `first`, which is one of them; positive means that it is worse."""
    compared = [configuration for configuration in comparison.configurations if configuration.compared]
    at, floor = compared.index(first), comparison.floor
    sign = -1 if comparison.minimized else 1
    if comparison.paired:
        rows = [comparison.blocks.means(configuration.scores) for configuration in compared]
        differences = behind(sign * np.array(rows), at, floor, comparison.overlap or 0.0)
    else:
        values = [np.array(comparison.blocks.means(each.scores, only_shared=False)) for each in compared]
        differences = behind_unpaired([sign * each for each in values], at, floor)
    if comparison.overlap is None:
        differences = [Difference(each.mean, math.nan, math.nan, each.count) for each in differences]
    if comparison.is_share:
        differences = [each.within(1.0) for each in differences]
    return list(zip(compared, differences, strict=True))


def _order(comparison: Comparison) -> None:
    """Sorts the configurations by their means, where a lost run counts as the worst score seen."""
    sign = -1 if comparison.minimized else 1
    configurations = comparison.configurations
    every = [sign * score for configuration in configurations for score in configuration.scores.values()]
    shared = comparison.blocks.shared

    def reached(configuration: Configuration) -> float:
        if not configuration.scores:
            return -math.inf
        if not configuration.lost:
            return sign * configuration.score.mean
        scores = {replicate: sign * score for replicate, score in configuration.scores.items()}
        return pessimistic(scores, configuration.lost, shared, min(every))

    def may_lead(configuration: Configuration) -> bool:
        return bool(configuration.scores) and (configuration.compared or bool(configuration.lost))

    candidates = [configuration for configuration in configurations if may_lead(configuration)]
    beaten = [c for c, best in zip(candidates, _front(comparison, candidates), strict=True) if not best]
    configurations.sort(key=lambda c: (not may_lead(c), c in beaten, -reached(c)))
    if not candidates:
        return
    top = reached(configurations[0])
    shares = [c for c in candidates if abs(reached(c) - top) <= EQUAL and c not in beaten]
    comparison.best = configurations[0] if len(shares) == 1 else None


def _front(comparison: Comparison, candidates: Sequence[Configuration]) -> list[bool]:
    """Whether each candidate is on the Pareto front of a search's objectives."""
    names = comparison.objectives
    reached = [
        [finite_mean([sought.value(r, name) for r in c.runs if counts(r)]) for name in names] for c in candidates
    ]
    if len(names) < 2 or any(value is None for values in reached for value in values):
        return [True] * len(candidates)
    return sought.front([[value for value in values if value is not None] for values in reached])


def _tell_apart(comparison: Comparison) -> None:
    """Notes how far each compared configuration is behind the first, and whether that is more than noise."""
    if not comparison.ranked:
        return
    first = comparison.ranked[0]
    if not first.compared or sum(configuration.compared for configuration in comparison.configurations) < 2:
        return  # the first lost runs, so how far it leads is not known
    for configuration, difference in lags(comparison, first):
        if configuration is not first:
            configuration.behind = difference
            configuration.tied = not difference.told_apart


def _without_interval(score: Estimate) -> Estimate:
    return Estimate(score.mean, score.sd, math.nan, math.nan, score.count)
