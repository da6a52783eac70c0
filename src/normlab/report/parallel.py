"""Parallel coordinates: a line for each configuration, through its value of each key to its score."""

import math
from collections.abc import Callable, Sequence

import altair as alt

from normlab.report import sought, wording
from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, GREY, INK, MUTED, inline, is_log, spec, wrapped
from normlab.report.comparison import Comparison, Configuration
from normlab.report.curves import thin
from normlab.report.settings import shortened

BEST, OTHERS = 60, 140  # lines: the best ones, and an even choice of the rest
KEYS = 9  # axes beside the score's
TICKS = 3  # of an axis of numbers

Axis = tuple[str, Callable[[Configuration], float], list[tuple[float, str]]]  # name, place from 0 to 1, its ticks


def parallel(comparison: Comparison) -> Chart | None:
    """A chart of the configurations with a score; None where fewer than two keys differ, or there are few lines."""
    ranked = comparison.ranked
    shown = [*ranked[:BEST], *thin(ranked[BEST:], OTHERS)]
    logs = sought.in_log(comparison.runs)
    keys = [key for key in comparison.keys if len({c.settings[key] for c in shown}) > 1]
    if len(keys) < 2 or len(shown) < 3:
        return None
    axes = [_axis(comparison, key, shown, key in logs) for key in keys[:KEYS]]
    axes.append(_score_axis(comparison, shown))
    drawing = _drawn(comparison, shown, axes)
    says = (
        f"A line for each of {len(shown)} configurations, through its values of {wording.listed(keys[:KEYS])} to its "
        f"{comparison.score_name}; thick lines are the best ones."
    )
    return Chart("parallel", drawing, says, elsewhere="the table of configurations")


def _axis(comparison: Comparison, key: str, shown: Sequence[Configuration], searched_in_log: bool) -> Axis:
    values = list(dict.fromkeys(c.settings[key] for c in shown))
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        values.sort()
        places = {value: (n + 0.5) / len(values) for n, value in enumerate(values)}
        ticks = [(place, shortened(value, comparison.digits)) for value, place in places.items()]
        return key, lambda c: places[c.settings[key]], thin(ticks, 12)
    place, ticks = _scale(numbers, is_log(numbers, searched_in_log))
    return key, lambda c: place(float(c.settings[key])), ticks


def _score_axis(comparison: Comparison, shown: Sequence[Configuration]) -> Axis:
    place, ticks = _scale([c.score.mean for c in shown], False)
    return comparison.score_name, lambda c: place(c.score.mean), ticks


def _scale(numbers: Sequence[float], log: bool) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Where a number lies between the lowest and the highest, and a few ticks."""
    to, back = (math.log, math.exp) if log else (float, float)
    low, high = to(min(numbers)), to(max(numbers))
    span = (high - low) or 1.0
    ticks = [(n / (TICKS - 1), f"{back(low + span * n / (TICKS - 1)):.3g}") for n in range(TICKS)]
    return lambda number: (to(number) - low) / span, ticks


def _leading(comparison: Comparison, shown: Sequence[Configuration]) -> Sequence[Configuration]:
    """The best one and those that cannot be told from it; where nothing is known about noise, the best tenth."""
    if any(c.behind is not None and c.behind.known for c in shown):
        return [*comparison.first, *(c for c in shown if c.tied and c.behind is not None and c.behind.known)]
    return shown[: max(1, len(shown) // 10)]


def _drawn(comparison: Comparison, shown: Sequence[Configuration], axes: Sequence[Axis]) -> dict:
    places = wording.decimals(comparison)
    leading = {id(c) for c in _leading(comparison, shown)}
    rows = [
        (n, name, place(c), c.label, wording.number(c.score.mean, places), "best" if id(c) in leading else "other")
        for n, c in reversed([*enumerate(shown)])  # the best on top
        for name, place, _ in axes
    ]
    names = [name for name, _, _ in axes]
    columns = ["line", "key", "place", "configuration", "score", "kind"]
    padding = 10 + 13 * max(name.count(".") for name in names)  # below names of several lines
    title = alt.Axis(orient="top", labelExpr=r"split(replace(datum.label, /[.]/g, '.\n'), '\n')", labelAngle=0,
                     labelLimit=0, domain=False, ticks=False, labelPadding=padding)  # fmt: skip
    x = alt.X("key:N", sort=names, title=None, axis=title, scale=alt.Scale(padding=0.35))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    at = alt.selection_point(name="at", on="pointerover", fields=["line"], empty=False, clear="pointerout")
    lines = alt.Chart(inline(columns, rows)).mark_line()
    detail = {"x": x, "y": y, "detail": "line:N"}
    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=["other", "best"], range=[GREY, ACCENT]))
    width = alt.condition("datum.kind == 'best'", alt.value(2.4), alt.value(0.9))
    plain = lines.encode(**detail, color=colour, strokeWidth=width)
    front = lines.encode(**detail, color=alt.value(INK), strokeWidth=alt.condition(at, alt.value(3), alt.value(0)))
    tips = ["configuration:N", alt.Tooltip("score:N", title=comparison.score_name)]
    pointed = lines.encode(**detail, opacity=alt.value(0), strokeWidth=alt.value(9), tooltip=tips).add_params(at)
    rules = alt.Chart(inline(["key"], [(name,) for name in names])).mark_rule(color=MUTED).encode(x=x)
    marks = [(name, place, wrapped(text)) for name, _, ticks in axes for place, text in ticks]
    words = alt.Chart(inline(["key", "place", "text"], marks))
    style = {"align": "left", "dx": 5, "lineBreak": "\n"}
    halo = words.mark_text(**style, stroke="var(--paper)", strokeWidth=4).encode(x=x, y=y, text="text:N")
    text = words.mark_text(**style, color=INK).encode(x=x, y=y, text="text:N")
    return spec(alt.layer(plain, front, rules, halo, text, pointed), height=320)
