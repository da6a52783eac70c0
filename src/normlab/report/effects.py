"""What each swept key does to the score, by the same runs as the ranking."""

import math
from collections.abc import Sequence

import altair as alt

from normlab.report.charts import ACCENT, INK, Spec, ends, inline, rings, rows_height, seed, shown_mean, spec
from normlab.report.compare import Comparison
from normlab.report.settings import label
from normlab.report.statistics import Estimate, marginal

MARGINAL = 12  # up to this many values of a key, each gets a mean


def effects(comparison: Comparison) -> list[tuple[str, str, Spec]]:
    """For each key that differs: its name, what the chart shows, and the chart."""
    return [(key, *_effect(comparison, key)) for key in comparison.keys if len(_values(comparison, key)) > 1]


def _effect(comparison: Comparison, key: str) -> tuple[str, Spec]:
    values = _values(comparison, key)
    numeric = all(_is_number(value) for value in values)
    drawn = (
        len(comparison.keys) > 1 and len(values) == sum(c.compared for c in comparison.ranked) > 2
    )  # a search's values: each is there once
    if numeric and (drawn or len(values) > MARGINAL):
        return "Each dot is a run.", _scatter(comparison, key, [float(value) for value in values])
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


def _means(comparison: Comparison, key: str, means: dict[str, Estimate], numeric: bool) -> Spec:
    order = sorted(means, key=float) if numeric else sorted(means, key=lambda v: -means[v].mean)
    if comparison.minimized and not numeric:
        order.reverse()
    rows = [(value, *ends(means[value]), shown_mean(means[value]), means[value].count) for value in order]
    data = inline(["name", "value", "low", "high", "mean", "seeds"], rows)
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, domain=False, ticks=False))
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
            (c.settings[key], label(c.settings), c.score.mean, shown_mean(c.score))
            for c in comparison.ranked
            if c.compared
        ]
        tips = [alt.Tooltip("of:N", title="configuration"), alt.Tooltip("mean:N", title=comparison.score_name)]
        layers.insert(0, rings(inline(["name", "of", "value", "mean"], own), y, x, tips))
    return spec(alt.layer(*layers), height=rows_height(len(order)))


def _scatter(comparison: Comparison, key: str, values: Sequence[float]) -> Spec:
    log = min(values) > 0 and max(values) / min(values) >= 100
    rows = [
        (float(c.settings[key]), run.score, str(run.folder), seed(run))
        for c in comparison.ranked
        for run in c.runs
        if c.compared and run.score is not None
    ]
    data = inline(["x", "value", "run", "seed"], rows)
    x = alt.X("x:Q", title=key, scale=alt.Scale(type="log" if log else "linear", zero=False, nice=not log))
    y = alt.Y("value:Q", title=comparison.score_name, scale=alt.Scale(zero=False))
    tips = ["run:N", alt.Tooltip("x:Q", title=key, format=".4~g"), alt.Tooltip("value:Q", format=".5~g"), "seed:N"]
    return spec(
        alt.Chart(data).mark_point(size=40, color=ACCENT, opacity=0.9).encode(x=x, y=y, tooltip=tips), height=240
    )


def _values(comparison: Comparison, key: str) -> list[str]:
    return list(dict.fromkeys(c.settings[key] for c in comparison.ranked if c.compared))


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
