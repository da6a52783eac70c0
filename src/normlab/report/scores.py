"""The chart of scores: each configuration's runs, mean and interval."""

from collections.abc import Sequence
from statistics import quantiles

import altair as alt

from normlab.report import wording
from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, INK, MUTED, ends, inline, named, rings, rows_height, seed, shown_mean, spec
from normlab.report.charts import wrapped as wrap
from normlab.report.comparison import Comparison, Configuration
from normlab.report.curves import thin
from normlab.report.runs import Run

SHOWN, MOST = 30, 100  # configurations in the chart
RINGS = 60  # runs of a configuration that are drawn, from the lowest to the highest score
LISTED = 10  # runs of a configuration whose scores stand in the table of the chart


def scores(comparison: Comparison) -> Chart:
    """Each configuration's runs, mean and interval."""
    shown, name = drawn(comparison), comparison.score_name
    rows = [(wrap(c.label), *ends(c.score), _kind(comparison, c), c.score.count, shown_mean(c.score)) for c in shown]
    dots = [
        (wrap(c.label), run.score, str(run.folder), seed(run))
        for c in shown
        for run in thin(sorted(_scored(comparison, c), key=lambda run: run.score or 0.0), RINGS)
    ]
    order = [row[0] for row in rows]
    y = named("name", order)
    x = alt.X("value:Q", title=name, scale=alt.Scale(zero=False, nice=True))
    kinds = ["best", "tied", "other"]
    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=[ACCENT, INK, MUTED]))
    shape = alt.Shape("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=["diamond", "circle", "square"]))
    means = inline(["name", "value", "low", "high", "kind", "seeds", "mean"], rows)
    interval = alt.Chart(means).mark_rule(strokeWidth=2)
    interval = interval.encode(y=y, x=alt.X("low:Q", title=name), x2="high:Q", color=colour)
    tips = ["name:N", alt.Tooltip("mean:N", title=name), "seeds:Q"]
    mean = alt.Chart(means).mark_point(size=90, filled=True, opacity=1)
    mean = mean.encode(y=y, x=x, color=colour, shape=shape, tooltip=tips)
    tips = ["run:N", "seed:N", alt.Tooltip("value:Q", format=".5~g")]
    runs = rings(inline(["name", "value", "run", "seed"], dots), y, x, tips)
    layers = [runs, interval, mean] if any(c.score.count > 1 for c in shown) else [mean]
    drawing = spec(alt.layer(*layers), height=rows_height(order))
    heads = ["configuration", name, "95 % interval", "runs"]
    return Chart("scores", drawing, _says(comparison, shown), heads, [_numbers(comparison, c) for c in shown])


def _scored(comparison: Comparison, configuration: Configuration) -> list[Run]:
    """The runs whose scores are compared."""
    shared = set(comparison.blocks.shared) if configuration.compared and comparison.paired else None
    scored = (run for run in configuration.runs if run.score is not None)
    return [run for run in scored if shared is None or run.replicate in shared]


def _says(comparison: Comparison, shown: Sequence[Configuration]) -> str:
    places, first, last = wording.decimals(comparison), shown[0], shown[-1]
    said = f"{comparison.score_name} of {wording.counted(len(shown), 'configuration')}"
    if len(shown) < 2:
        return f"{said}, {wording.number(first.score.mean, places)}."
    reached = (f"{wording.number(c.score.mean, places)} for {c.label}" for c in (first, last))
    return f"{said}, from {' to '.join(reached)}."


def _numbers(comparison: Comparison, configuration: Configuration) -> list[str]:
    """The row of a configuration in the table of the chart."""
    places, runs = wording.decimals(comparison), _scored(comparison, configuration)
    values = [wording.number(run.score, places) for run in runs[:LISTED]]
    values += [f"and {len(runs) - LISTED} more"] if len(runs) > LISTED else []
    estimate = configuration.score
    return [configuration.label, wording.score(estimate, places), wording.interval(estimate, places), ", ".join(values)]


def drawn(comparison: Comparison) -> list[Configuration]:
    """The best SHOWN configurations, without those so far behind that the others would shrink to one dot.

    The limit is Tukey's outer fence on the bad side; the best one and all that cannot be told from it stay, up to MOST.
    """
    ranked = comparison.ranked
    if len(ranked) < 4:
        return ranked
    sign = -1 if comparison.minimized else 1
    means = [sign * c.score.mean for c in ranked]
    first, _, third = quantiles(means, method="inclusive")
    near = [c for c, mean in zip(ranked, means, strict=True) if mean >= first - 3 * (third - first)]
    shown = near[:SHOWN]
    tied = [c for c in ranked if c.tied and c.behind is not None and c.behind.known]
    kept = {id(c) for c in (*shown, *tied, *comparison.first)}
    return [c for c in ranked if id(c) in kept][:MOST]


def _kind(comparison: Comparison, configuration: Configuration) -> str:
    return "best" if configuration in comparison.first else "tied" if configuration.tied else "other"
