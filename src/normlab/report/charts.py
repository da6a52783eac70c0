"""What charts share, as Vega-Lite. They use the page's CSS variables, so one drawing serves light, dark and print."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from normlab.folder.identity import REPLICATES
from normlab.report.chart import Spec
from normlab.report.runs import Run
from normlab.report.statistics import Estimate

INK, MUTED, GRID, ACCENT, GREY = (f"var(--{name})" for name in ("ink", "muted", "grid", "accent", "grey"))
# Okabe and Ito's colours that show on white and on black, as the page's variables
PALETTE = [f"var(--c{number})" for number in range(6)]
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'  # page.css has it too
WRAP = 24  # characters of a line of a name beside a chart


def rings(data: alt.InlineData, y: alt.Y, x: alt.X, tips: list[Any]) -> alt.Chart:
    """The single values beside their mean."""
    marks = alt.Chart(data).mark_point(size=26, opacity=0.75, strokeWidth=1.2)
    return marks.encode(y=y, x=x, color=alt.value(MUTED), tooltip=tips)


def spec(chart: "alt.Chart | alt.LayerChart | alt.FacetChart", height: int) -> Spec:
    """A drawing in the page's colours, as wide as the page allows."""
    axis = {
        "labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID,
        "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12, "tickCount": 6,
    }  # fmt: skip
    config = {"axis": axis, "view": {"stroke": None}, "background": None, "font": FONT}
    return chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")
    ).to_dict() | {"config": config}


def rows_height(names: Sequence[str]) -> int:
    """The height of a chart with a row for each name, which may take several lines, and an axis below."""
    lines = max((name.count("\n") for name in names), default=0) + 1
    return (15 * lines + 11) * len(names) + 48


def named(field: str, order: Sequence[str]) -> alt.Y:
    """The rows of a chart, with whole names beside them."""
    axis = alt.Axis(labelLimit=0, labelExpr=r"split(datum.label, '\n')", domain=False, ticks=False)
    return alt.Y(f"{field}:N", sort=[*order], title=None, axis=axis)


def wrapped(name: str) -> str:
    """A name in lines of at most WRAP characters; nothing of it is left out, so no two names become one."""
    lines = [""]
    for word in name.split(" · "):
        pieces = [word[at : at + WRAP] for at in range(0, max(len(word), 1), WRAP)]
        if lines[-1] and len(lines[-1]) + 3 + len(pieces[0]) <= WRAP:
            lines[-1] += " · " + pieces[0]
        else:
            lines.append(pieces[0])
        lines += pieces[1:]
    return "\n".join(lines[1:])


def inline(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> alt.InlineData:
    """Rows as CSV, which is a fraction of JSON's size."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_short(value) for value in row] for row in rows)
    return alt.InlineData(values=text.getvalue(), format=alt.CsvDataFormat(type="csv"))


def is_log(values: Sequence[float], searched_in_log: bool) -> bool:
    """Whether an axis is logarithmic: where its key was searched so, or values lie over two decades or more."""
    low, high = min(values), max(values)
    return low > 0 and (searched_in_log or high / low >= 100)


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
