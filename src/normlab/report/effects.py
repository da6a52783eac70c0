"""What each swept key does to the score, by the same runs as the ranking."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import altair as alt

from normlab.report import sought, wording
from normlab.report.chart import Chart
from normlab.report.charts import (
    ACCENT,
    INK,
    ends,
    inline,
    is_log,
    named,
    rings,
    rows_height,
    seed,
    shown_mean,
    spec,
    wrapped,
)
from normlab.report.comparison import Comparison
from normlab.report.curves import thin
from normlab.report.scores import RINGS
from normlab.report.settings import shortened
from normlab.report.statistics import Estimate, marginal

DOTS = 800  # runs in a cloud
PARTS = 5  # rows of the table of a cloud of runs
MARGINAL = 12  # up to this many values of a key, each gets a mean


def effects(comparison: Comparison) -> list[tuple[str, str, Chart]]:
    """For each key that differs: its name, what the chart shows, and the chart."""
    logs = sought.in_log(comparison.runs)
    return [
        (key, *_effect(comparison, key, key in logs)) for key in comparison.keys if len(_values(comparison, key)) > 1
    ]


def _effect(comparison: Comparison, key: str, searched_in_log: bool) -> tuple[str, Chart]:
    values = _values(comparison, key)
    numeric = all(_is_number(value) for value in values)
    drawn = (
        len(comparison.keys) > 1 and len(values) == sum(c.compared for c in comparison.ranked) > 2
    )  # a search's values: each is there once
    if numeric and (drawn or len(values) > MARGINAL):
        crowded = sum(len(c.runs) for c in comparison.ranked) > DOTS
        log = is_log([float(value) for value in values], searched_in_log)
        told = f"Each dot is a run; of more than {DOTS} an even choice is drawn." if crowded else "Each dot is a run."
        return told, _scatter(comparison, key, log)
    blocks, paired = comparison.blocks, comparison.paired and comparison.blocks.shared
    scores = [
        (c.settings[key], tuple(v for k, v in c.settings.items() if k != key), blocks.name(replicate), score)
        for c in comparison.ranked
        for replicate, score in c.scores.items()
        if c.compared and (not paired or replicate in blocks.shared)
    ]
    means, balanced = marginal(scores, comparison.estimate)
    several = len(comparison.keys) > 1
    caption = (
        f"Dots are means{' over the other keys' if several else ''}, bars their 95 % intervals over {blocks.units}"
    )
    if several:
        caption += "; rings are the configurations of which they are means"
    if comparison.searched:
        caption += ". The search chose the other keys' values: no effect of this key alone"
    elif not balanced:
        caption += ". Other keys differ from value to value, so this is rough"
    return f"{caption}.", _means(comparison, key, means, numeric)


def _means(comparison: Comparison, key: str, means: dict[str, Estimate], numeric: bool) -> Chart:
    order = sorted(means, key=float) if numeric else sorted(means, key=lambda v: -means[v].mean)
    if comparison.minimized and not numeric:
        order.reverse()
    names = [wrapped(shortened(value, comparison.digits)) for value in order]
    rows = [
        (name, *ends(means[value]), shown_mean(means[value]), means[value].count)
        for name, value in zip(names, order, strict=True)
    ]
    data = inline(["name", "value", "low", "high", "mean", "seeds"], rows)
    y = named("name", names)
    rule = (
        alt.Chart(data)
        .mark_rule(strokeWidth=2, color=INK)
        .encode(y=y, x=alt.X("low:Q", title=comparison.score_name), x2="high:Q")
    )
    tips = [alt.Tooltip("name:N", title=key), alt.Tooltip("mean:N", title=comparison.score_name), "seeds:Q"]
    x = alt.X("value:Q", title=comparison.score_name, scale=alt.Scale(zero=False))
    dot = alt.Chart(data).mark_point(size=80, filled=True, opacity=1, color=ACCENT).encode(y=y, x=x, tooltip=tips)
    layers = [rule, dot]
    if len(comparison.keys) > 1:
        own = [
            (name, c.label, c.score.mean, shown_mean(c.score))
            for name, value in zip(names, order, strict=True)
            for c in thin([c for c in comparison.ranked if c.compared and c.settings[key] == value], RINGS)
        ]
        tips = [alt.Tooltip("of:N", title="configuration"), alt.Tooltip("mean:N", title=comparison.score_name)]
        layers.insert(0, rings(inline(["name", "of", "value", "mean"], own), y, x, tips))
    places, units = wording.decimals(comparison), comparison.blocks.units
    numbers = [
        [shortened(v, comparison.digits), wording.number(means[v].mean, places), wording.interval(means[v], places),
         str(means[v].count)]
        for v in order
    ]  # fmt: skip
    says = f"{comparison.score_name} by {key}: {', '.join(f'{value} {mean}' for value, mean, *_ in numbers)}."
    heads = [key, comparison.score_name, "95 % interval", units]
    return Chart(f"effect-{key}", spec(alt.layer(*layers), height=rows_height(names)), says, heads, numbers)


def _scatter(comparison: Comparison, key: str, log: bool) -> Chart:
    rows = [
        (float(c.settings[key]), run.score, str(run.folder), seed(run))
        for c in comparison.ranked
        for run in c.runs
        if c.compared and run.score is not None
    ]
    drawn = thin(sorted(rows), DOTS)
    data = inline(["x", "value", "run", "seed"], drawn)
    x = alt.X("x:Q", title=key, scale=alt.Scale(type="log") if log else alt.Scale(zero=False, nice=True))
    y = alt.Y("value:Q", title=comparison.score_name, scale=alt.Scale(zero=False))
    tips = ["run:N", alt.Tooltip("x:Q", title=key, format=".4~g"), alt.Tooltip("value:Q", format=".5~g"), "seed:N"]
    dots = alt.Chart(data).mark_point(size=40, color=ACCENT, opacity=0.9).encode(x=x, y=y, tooltip=tips)
    says = f"{comparison.score_name} of {len(rows)} runs against {key}, on a {'logarithmic' if log else 'linear'} axis."
    return Chart(f"effect-{key}", spec(dots, height=240), says, *_by_value(comparison, key, rows))


def _by_value(comparison: Comparison, key: str, rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], list[list[str]]]:
    """The numbers of a cloud of runs: fifths of it by the key's values, with how the scores of each are spread."""
    places = wording.decimals(comparison)
    ordered = sorted((value, score) for value, score, *_ in rows)
    parts = [ordered[len(ordered) * n // PARTS : len(ordered) * (n + 1) // PARTS] for n in range(PARTS)]
    numbers = []
    for part in filter(None, parts):
        scores = [score for _, score in part]
        spread = (wording.number(value, places) for value in (min(scores), median(scores), max(scores)))
        numbers.append([f"{part[0][0]:.4g} to {part[-1][0]:.4g}", str(len(part)), *spread])
    return [key, "runs", "lowest", "median", "highest"], numbers


def _values(comparison: Comparison, key: str) -> list[str]:
    return list(dict.fromkeys(c.settings[key] for c in comparison.ranked if c.compared))


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
