"""The charts of a fair sweep; each has its numbers as a table beside it."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, INK, MUTED, PALETTE, inline, named, rows_height, spec, wrapped
from normlab.report.fair.letters import groups
from normlab.report.fair.numbers import Curve
from normlab.report.fair.ranks import Ranks
from normlab.report.settings import shortened
from normlab.report.wording import NOTHING, number

MARKS = {  # Vega's shapes, and their paths in a legend of 34 × 12
    "circle": "M17 2 A4 4 0 1 1 16.99 2 Z",
    "square": "M13 2 H21 V10 H13 Z",
    "triangle-up": "M17 1 L22 10 H12 Z",
    "diamond": "M17 0 L22 6 L17 12 L12 6 Z",
    "cross": "M15.5 1 H18.5 V4.5 H22 V7.5 H18.5 V11 H15.5 V7.5 H12 V4.5 H15.5 Z",
    "triangle-down": "M17 11 L22 2 H12 Z",
    "triangle-right": "M22 6 L13 1 V11 Z",
    "triangle-left": "M12 6 L21 1 V11 Z",
}
SHAPES = [*MARKS]
CROSS = "M-1,-1L1,1M-1,1L1,-1"
ARROWS = {False: "M0,-1.2V1.2M-0.8,0.3L0,1.2L0.8,0.3", True: "M0,1.2V-1.2M-0.8,-0.3L0,-1.2L0.8,-0.3"}
ROW = 0.05  # the height of a row of marks, as a share of that of the scores
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]


def looks(count: int) -> tuple[list[str], list[list[int]], list[str]]:
    """The colour, the dashes and the point of each of `count` arms, which together tell 24 arms apart."""
    colours = [PALETTE[place % len(PALETTE)] for place in range(count)]
    dashes = [DASHES[place // len(PALETTE) % len(DASHES)] for place in range(count)]
    return colours, dashes, [SHAPES[place % len(SHAPES)] for place in range(count)]


def trials(curves: Sequence[Curve], key: str, log: bool, score: str, minimized: bool) -> Chart:
    """The tuning score of each trial against the key; a cross at the edge is a lost one, an arrow one far off."""
    names = [curve.name for curve in curves]
    low, high = bounds([value for curve in curves for value in curve.known], minimized)
    rows, off, ends = _placed(curves, low, high, minimized)
    x = alt.X("x:Q", title=key, scale=alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=12))
    axis = alt.Axis(labelExpr=f"datum.value < {low} || datum.value > {high} ? '' : datum.label")
    y = alt.Y("y:Q", title=score, axis=axis, scale=alt.Scale(zero=False, domain=ends, nice=False, padding=8))
    colour, dash, shape = _encodings(names)
    over = alt.selection_point(name="arm", on="pointerover", fields=["arm"], clear="pointerout")
    front = alt.condition(over, alt.value(1.0), alt.value(0.15))
    columns = ["arm", "x", "y", "what"]
    tips = ["arm:N", alt.Tooltip("x:Q", title=key, format=".4~g"), alt.Tooltip("what:N", title=score)]
    base = alt.Chart(inline(columns, rows)).encode(x=x, y=y, color=colour, opacity=front)
    lined = alt.FieldOneOfPredicate("arm", [curve.name for curve in curves if curve.line])
    line = base.transform_filter(lined).mark_line(strokeWidth=2).encode(strokeDash=dash)
    dots = base.mark_point(size=60, filled=True).encode(shape=shape, tooltip=tips).add_params(over)
    kinds = alt.Scale(domain=["lost", "off"], range=[CROSS, ARROWS[minimized]])
    marks = alt.Chart(inline([*columns, "kind"], off)).mark_point(size=36, strokeWidth=1.8, filled=False)
    kind = alt.Shape("kind:N", legend=None, scale=kinds)
    marks = marks.encode(x=x, y=y, color=colour, opacity=front, shape=kind, tooltip=tips)
    drawing = spec(alt.layer(line, dots, marks).resolve_scale(shape="independent"), height=320)
    count = sum(len(curve.points) for curve in curves)
    says = f"{score} of {count} trials against {key}, a line for each of {len(names)} arms."
    cells = [(c.name, shortened(f"{value:.10g}"), what) for c in curves for value, _, what in c.points]
    return Chart("trials", drawing, says, ["arm", key, score], cells, text=1)


def _placed(
    curves: Sequence[Curve], low: float, high: float, minimized: bool
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[float]]:
    """The points within `low` and `high`, those beyond, and the ends of an axis that has room for both.

    Beyond the worse end each arm has a row of its own, so that no mark hides another.
    """
    edge, step = (high, ROW * (high - low)) if minimized else (low, ROW * (low - high))
    rows, off = [], []
    for place, curve in enumerate(curves):
        for value, score, what in curve.points:
            if score is not None and low <= score <= high:
                rows.append((curve.name, value, score, what))
            else:
                kind = "lost" if score is None else "off"
                off.append((curve.name, value, edge + step * (place + 0.5), what, kind))
    return rows, off, sorted([high if not minimized else low, edge + step * len(curves)])


def bounds(values: Sequence[float], minimized: bool) -> tuple[float, float]:
    """The ends of an axis that shows the better half of the scores over at least a third of its height."""
    ordered = sorted(values, reverse=not minimized)
    if not ordered:
        return 0.0, 1.0
    best, median, worst = ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]
    far = best + 3 * (median - best) if median != best else worst
    edge = min(worst, far) if minimized else max(worst, far)
    if edge == best:  # an axis needs some height
        edge += (1 if minimized else -1) * (abs(best) / 100 or 0.01)
    return (best, edge) if minimized else (edge, best)


def expected(curves: dict[str, list[float]], score: str, places: int) -> Chart:
    """The best score to expect against the number of trials, a line and points for each arm."""
    names = list(curves)
    rows = [(name, n, value) for name, values in curves.items() for n, value in enumerate(values, 1)]
    x = alt.X("n:Q", title="trials", axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("best:Q", title=f"expected best {score}", scale=alt.Scale(zero=False))
    colour, dash, shape = _encodings(names)
    base = alt.Chart(inline(["arm", "n", "best"], rows)).encode(x=x, y=y, color=colour)
    tips = ["arm:N", alt.Tooltip("n:Q", title="trials"), alt.Tooltip("best:Q", title=score, format=".5~g")]
    line = base.mark_line(strokeWidth=2).encode(strokeDash=dash)
    dots = base.mark_point(size=36, filled=True, opacity=1).encode(shape=shape, tooltip=tips)
    longest = max(map(len, curves.values()))
    cells = [
        [str(n + 1), *(number(values[n], places) if n < len(values) else NOTHING for values in curves.values())]
        for n in range(longest)
    ]
    says = f"The best {score} to expect of 1 to {longest} trials, a line for each of {len(names)} arms."
    return Chart("expected-best", spec(alt.layer(line, dots), height=280), says, ["trials", *names], cells)


def _encodings(names: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """How the arms are told from each other: by colour, dashes and points."""
    colour, dash, shape = (alt.Scale(domain=[*names], range=values) for values in looks(len(names)))
    return (
        alt.Color("arm:N", legend=None, scale=colour),
        alt.StrokeDash("arm:N", legend=None, scale=dash),
        alt.Shape("arm:N", legend=None, scale=shape),
    )


def critical_differences(names: Sequence[str], ranks: Ranks) -> Chart:
    """Mean ranks with the critical difference, and a bar over each group of arms that cannot be told apart.

    After Demšar 2006, with a line for each arm. names: as in `ranks`, the best first.
    """
    sets = [each for each in groups(ranks.apart) if len(each) > 1]
    labels = [f"{name} · {rank:.2f}" for name, rank in zip(names, ranks.mean, strict=True)]
    scale_row = f"critical difference {ranks.critical:.2f}"
    bars = [(scale_row, 1.0, 1.0 + ranks.critical, "scale")]
    bars += [(f"not told apart {n}", ranks.mean[s[0]], ranks.mean[s[-1]], "group") for n, s in enumerate(sets, 1)]
    labels = [wrapped(label) for label in labels]
    order = [*[row[0] for row in bars], *labels]
    y = named("name", order)
    ends = alt.Scale(domain=[1, max(len(names), 1 + ranks.critical)], nice=False, padding=6)
    x = alt.X("low:Q", title=f"mean rank over {ranks.count} data sets (1 is the best)", scale=ends)
    kinds = alt.Scale(domain=["scale", "group"], range=[MUTED, INK])
    rule = alt.Chart(inline(["name", "low", "high", "kind"], bars)).mark_rule(strokeWidth=5)
    rule = rule.encode(y=y, x=x, x2="high:Q", color=alt.Color("kind:N", legend=None, scale=kinds))
    dots = alt.Chart(inline(["name", "low"], list(zip(labels, map(float, ranks.mean), strict=True))))
    dots = dots.mark_point(size=80, filled=True, opacity=1, color=ACCENT).encode(y=y, x=x, tooltip=["name:N"])
    marks = [" ".join(str(n) for n, s in enumerate(sets, 1) if place in s) or "–" for place in range(len(names))]
    cells = [(name, f"{rank:.2f}", mark) for name, rank, mark in zip(names, ranks.mean, marks, strict=True)]
    says = f"Mean ranks of {len(names)} arms over {ranks.count} data sets; critical difference {ranks.critical:.2f}."
    drawing = spec(alt.layer(rule, dots), height=rows_height(order))
    return Chart("ranks", drawing, says, ["arm", "mean rank", "bars of arms not told apart"], cells)
