"""The learning curves: a panel for each of the best configurations, with the others behind it in grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import altair as alt

from normlab.report import wording
from normlab.report.chart import Chart, Spec
from normlab.report.charts import ACCENT, GREY, INK, inline, seed, spec
from normlab.report.comparison import Comparison, Configuration
from normlab.report.runs import Run, read_curve

PANELS = 9  # configurations that have a panel
BEHIND = 20  # configurations in grey behind a panel
RUNS = 30  # the most thin lines in a panel
POINTS = 200  # the most points of a curve
EPOCHS = 5  # epochs in the table of the panels
POINTER = 120  # points of a panel that the pointer finds
BELOW = "the table below the panels"

Curve = list[tuple[int, float]]
Point = TypeVar("Point")


@dataclass(frozen=True)
class Panels:
    """Learning curves on the same axes. charts: with the label of each one's configuration. behind: how many others
    are drawn in grey. heads, rows: the means of each panel at some epochs."""

    charts: list[tuple[str, Chart]]
    behind: int
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class _Curves:
    """The curves of a configuration's runs, and mean, lowest and highest value where all finished runs have one."""

    configuration: Configuration
    runs: list[tuple[Run, Curve]]
    band: list[tuple[int, float, float, float]]


def curves(comparison: Comparison) -> Panels | None:
    """The score's column of each run's metrics.csv over the epochs; None where no run has one."""
    read: list[_Curves] = []
    for configuration in comparison.configurations:
        if len(read) < PANELS + BEHIND and (found := _read(configuration, comparison.score_name)).runs:
            read.append(found)
    if not read:
        return None
    domain = _domain([curve for each in read for _, curve in each.runs], comparison.minimized)
    panels = read[:PANELS]
    axes = _axes(comparison.score_name, domain)
    charts = [(each.configuration.label, _panel(comparison, each, read, axes)) for each in panels]
    heads, rows = _numbers(panels, wording.decimals(comparison))
    return Panels(charts, len(read) - len(panels), heads, rows)


def _read(configuration: Configuration, column: str) -> _Curves:
    runs = [(run, curve) for run in configuration.runs if (curve := read_curve(run, column))]
    whole = [dict(curve) for run, curve in runs if run.status == "finished"]
    epochs = sorted(set.intersection(*map(set, whole))) if whole else []
    values = [(epoch, [curve[epoch] for curve in whole]) for epoch in epochs]
    return _Curves(configuration, runs, [(epoch, fmean(each), min(each), max(each)) for epoch, each in values])


def thin(curve: list[Point], room: int) -> list[Point]:
    """At most `room` points, evenly spaced; the first and the last are among them."""
    if len(curve) <= room:
        return curve
    return [curve[round(position * (len(curve) - 1) / (room - 1))] for position in range(room)]


def _domain(curves: Sequence[Curve], minimized: bool) -> list[float] | None:
    """What the axis shows where the beginnings lie so far off that the ends would be one line; None: all."""
    every = [value for curve in curves for _, value in curve]
    late = [value for curve in curves for _, value in curve[len(curve) // 4 :]]
    low, high = min(late), max(late)
    if high - low > (max(every) - min(every)) / 2 or low == high:
        return None
    room = (high - low) / 20
    return [min(every), high + room] if minimized else [low - room, max(every)]


def _panel(comparison: Comparison, own: _Curves, read: Sequence[_Curves], axes: Spec) -> Chart:
    """A configuration's runs, mean and band, before the means of the others. axes: the panel without data."""
    runs, room = thin(own.runs, RUNS), max(2, POINTER // min(len(own.runs), RUNS))
    others = [
        (n, epoch, mean)
        for n, each in enumerate(read)
        if each is not own
        for epoch, mean, _, _ in thin(each.band, POINTS // 4)
    ]
    lines = [(n, *point) for n, (_, curve) in enumerate(runs) for point in thin(curve, POINTS)]
    band = inline(["e", "v", "low", "high"], thin(own.band, POINTS))
    pointed = [
        (*point, f"{run.folder} ({run.status})", seed(run)) for run, curve in runs for point in thin(curve, room)
    ]
    data = [inline(["r", "e", "v"], others), inline(["r", "e", "v"], lines), band, band]
    data.append(inline(["e", "v", "run", "seed"], pointed))
    layers = [layer | {"data": rows.to_dict()} for layer, rows in zip(axes["layer"], data, strict=True)]
    label, name = own.configuration.label, comparison.score_name
    says = f"{name} of {label} over the epochs, {wording.counted(len(own.runs), 'run')}, before the others."
    return Chart("curves-" + label, axes | {"layer": layers}, says, elsewhere=BELOW)


def _axes(score: str, domain: list[float] | None) -> Spec:
    """A panel without data, which all panels share: altair takes long to check each."""
    x = alt.X("e:Q", title="epoch", axis=alt.Axis(grid=False, tickMinStep=1, format="d", tickCount=4))
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(zero=False, domain=domain)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=score, scale=scale, axis=alt.Axis(tickCount=4))

    empty = alt.Chart(inline([], []))
    others = empty.mark_line(strokeWidth=1, color=GREY, clip=True).encode(x=x, y=y("v"), detail="r:N")
    runs = empty.mark_line(strokeWidth=1, color=ACCENT, opacity=0.45, clip=True).encode(x=x, y=y("v"), detail="r:N")
    band = empty.mark_area(color=ACCENT, opacity=0.18, clip=True).encode(x=x, y=y("low"), y2="high:Q")
    mean = empty.mark_line(color=ACCENT, strokeWidth=2.4, clip=True).encode(x=x, y=y("v"))
    nearest = alt.selection_point(
        name="at", on="pointerover", nearest=True, fields=["run", "e"], empty=False, clear="pointerout"
    )
    tips = ["run:N", "seed:N", alt.Tooltip("e:Q", title="epoch"), alt.Tooltip("v:Q", title=score, format=".5~g")]
    dots = empty.mark_point(size=60, filled=True, color=INK, clip=True)
    dots = dots.encode(x=x, y=y("v"), opacity=alt.condition(nearest, alt.value(1), alt.value(0)), tooltip=tips)
    return spec(alt.layer(others, runs, band, mean, dots.add_params(nearest)), height=170)


def _numbers(panels: Sequence[_Curves], places: int) -> tuple[list[str], list[list[str]]]:
    """Mean, lowest and highest of each configuration at a few epochs."""
    epochs = thin(sorted({epoch for each in panels for epoch, *_ in each.band}), EPOCHS)
    rows = []
    for each in panels:
        known = {epoch: values for epoch, *values in each.band}
        rows.append([each.configuration.label, *(_cell(known.get(epoch), places) for epoch in epochs)])
    return ["configuration", *(f"epoch {epoch}" for epoch in epochs)], rows


def _cell(values: Sequence[float] | None, places: int) -> str:
    if values is None:
        return wording.NOTHING
    mean, low, high = (wording.number(value, places) for value in values)
    return mean if low == high else f"{mean} ({low} to {high})"
