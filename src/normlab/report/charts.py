"""The charts, as Vega-Lite. They use the page's CSS variables, so one drawing serves light, dark and print."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Any

import altair as alt

from normlab.folder.identity import REPLICATES
from normlab.report.compare import Comparison, Configuration
from normlab.report.runs import Run
from normlab.report.settings import label
from normlab.report.statistics import Estimate

COLOURED = 10  # configurations in colour; the others are grey
SHOWN = 30  # configurations in the chart of scores
INK, MUTED, GRID, ACCENT, GREY = (f"var(--{name})" for name in ("ink", "muted", "grid", "accent", "grey"))
# Okabe and Ito's colours that show on white and on black, as the page's variables; then again, dashed
PALETTE = [f"var(--c{number % 6})" for number in range(COLOURED)]
DASHES = [[1, 0]] * 6 + [[5, 3]] * 4

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'  # page.css has it too

Spec = dict[str, Any]


def scores(comparison: Comparison) -> Spec:
    """Each configuration's runs, mean and interval."""
    shown, shared = drawn(comparison), set(comparison.blocks.shared)
    rows = [
        (label(c.settings), *ends(c.score), _kind(comparison, c), c.score.count, shown_mean(c.score)) for c in shown
    ]
    dots = [
        (label(c.settings), run.score, str(run.folder), seed(run))
        for c in shown
        for run in c.runs
        if run.score is not None and (not c.compared or not comparison.paired or run.replicate in shared)
    ]
    order = [row[0] for row in rows]
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, domain=False, ticks=False))
    x = alt.X("value:Q", title=comparison.score_name, scale=alt.Scale(zero=False, nice=True))
    colour = alt.Color(
        "kind:N", legend=None, scale=alt.Scale(domain=["best", "tied", "other"], range=[ACCENT, INK, MUTED])
    )
    shape = alt.Shape(
        "kind:N", legend=None, scale=alt.Scale(domain=["best", "tied", "other"], range=["diamond", "circle", "square"])
    )
    means = inline(["name", "value", "low", "high", "kind", "seeds", "mean"], rows)
    tips = ["name:N", alt.Tooltip("mean:N", title=comparison.score_name), "seeds:Q"]
    interval = (
        alt.Chart(means)
        .mark_rule(strokeWidth=2)
        .encode(y=y, x=alt.X("low:Q", title=comparison.score_name), x2="high:Q", color=colour)
    )
    mean = (
        alt.Chart(means)
        .mark_point(size=90, filled=True, opacity=1)
        .encode(y=y, x=x, color=colour, shape=shape, tooltip=tips)
    )
    tips = ["run:N", "seed:N", alt.Tooltip("value:Q", format=".5~g")]
    runs = rings(inline(["name", "value", "run", "seed"], dots), y, x, tips)
    layers = [runs, interval, mean] if any(c.score.count > 1 for c in shown) else [mean]
    return spec(alt.layer(*layers), height=rows_height(len(shown)))


def drawn(comparison: Comparison) -> list[Configuration]:
    """The best SHOWN configurations, without those so far behind that the others would shrink to one dot.

    The limit is Tukey's outer fence on the bad side; the best one and all that cannot be told from it always stay.
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
    return [c for c in ranked if c in shown or c in tied or c in comparison.first]


def rings(data: alt.InlineData, y: alt.Y, x: alt.X, tips: list[Any]) -> alt.Chart:
    """The single values beside their mean."""
    marks = alt.Chart(data).mark_point(size=26, opacity=0.75, strokeWidth=1.2)
    return marks.encode(y=y, x=x, color=alt.value(MUTED), tooltip=tips)


def spec(chart: "alt.Chart | alt.LayerChart | alt.FacetChart", height: int) -> Spec:
    """A chart in the page's colours, as wide as the page allows."""
    axis = {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID,
        "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12, "tickCount": 6,
    }  # fmt: skip
    config = {"axis": axis, "view": {"stroke": None}, "background": None, "font": FONT}
    return chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")
    ).to_dict() | {"config": config}


def rows_height(rows: int) -> int:
    """The height of a chart with a line of text for each row and an axis below."""
    return 26 * rows + 48


def inline(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> alt.InlineData:
    """Rows as CSV, which is a fraction of JSON's size."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_short(value) for value in row] for row in rows)
    return alt.InlineData(values=text.getvalue(), format=alt.CsvDataFormat(type="csv"))


def seed(run: Run) -> str:
    """A run's seeds, as a pointer shows them."""
    first, *others = zip(REPLICATES, run.replicate, strict=True)
    return ", ".join([str(first[1]), *(f"{key} {value}" for key, value in others if value)])


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else ""
    return value


def ends(score: Estimate) -> tuple[float, float, float]:
    """Where a bar is drawn: its middle and its ends; a single value gets no bar."""
    known = not math.isnan(score.low)
    return score.mean, score.low if known else score.mean, score.high if known else score.mean


def shown_mean(score: Estimate) -> str:
    return f"{score.mean:.5g}" + ("" if math.isnan(score.low) else f" ({score.low:.5g} to {score.high:.5g})")


def _kind(comparison: Comparison, configuration: Configuration) -> str:
    return "best" if configuration in comparison.first else "tied" if configuration.tied else "other"
