"""The learning curves: a mean and a band for each configuration, and every run under the pointer."""

from collections.abc import Sequence
from statistics import fmean
from typing import TypeVar

import altair as alt

from normlab.report.charts import COLOURED, DASHES, GREY, INK, PALETTE, Spec, inline, seed, spec
from normlab.report.compare import Comparison
from normlab.report.runs import Run, read_curve
from normlab.report.settings import label

POINTS = 200  # the most points that one curve has
LINES = 40_000  # the most points that all curves have together
POINTER = 3_000  # the most points that the pointer finds

Curve = list[tuple[int, float]]
Point = TypeVar("Point")


def curves(comparison: Comparison) -> Spec | None:
    """The score's column of each run's metrics.csv over the epochs; None where no run has one."""
    curves_of_runs = [
        (rank, run, curve)
        for rank, configuration in enumerate(comparison.configurations)
        for run in configuration.runs
        if (curve := read_curve(run, comparison.score_name))
    ]
    if not curves_of_runs:
        return None
    room = min(POINTS, max(8, LINES // len(curves_of_runs)))
    names = [label(configuration.settings) for configuration in comparison.configurations]
    lines = inline(
        ["r", "g", "e", "v"],
        [(n, _group(rank), *point) for n, (rank, _, curve) in enumerate(curves_of_runs) for point in thin(curve, room)],
    )
    pointed = _pointed(curves_of_runs, names)
    domain = _domain([curve for _, _, curve in curves_of_runs], comparison.minimized)
    return _drawn(comparison.score_name, lines, _bands(curves_of_runs, room), pointed, domain)


def thin(curve: list[Point], room: int) -> list[Point]:
    """At most `room` points, evenly spaced; the first and the last are among them."""
    if len(curve) <= room:
        return curve
    return [curve[round(position * (len(curve) - 1) / (room - 1))] for position in range(room)]


def _group(rank: int) -> str:
    return str(min(rank, COLOURED))


def _bands(curves_of_runs: Sequence[tuple[int, Run, Curve]], room: int) -> alt.InlineData:
    """Mean, lowest and highest of the finished runs of each coloured configuration, where all have the epoch."""
    rows = []
    for rank in range(COLOURED):
        curves = [dict(curve) for at, run, curve in curves_of_runs if at == rank and run.status == "finished"]
        epochs = sorted(set.intersection(*map(set, curves))) if curves else []
        for epoch in thin(epochs, room):
            values = [curve[epoch] for curve in curves]
            rows.append((str(rank), epoch, fmean(values), min(values), max(values)))
    return inline(["g", "e", "mean", "low", "high"], rows)


def _domain(curves: Sequence[Curve], minimized: bool) -> list[float] | None:
    """What the axis shows where the beginnings lie so far off that the ends would be one line; None: all."""
    every = [value for curve in curves for _, value in curve]
    late = [value for curve in curves for _, value in curve[len(curve) // 4 :]]
    low, high = min(late), max(late)
    if high - low > (max(every) - min(every)) / 2 or low == high:
        return None
    room = (high - low) / 20
    return [min(every), high + room] if minimized else [low - room, max(every)]


def _pointed(curves_of_runs: Sequence[tuple[int, Run, Curve]], names: Sequence[str]) -> alt.InlineData:
    room = max(2, min(60, POINTER // len(curves_of_runs)))
    return inline(
        ["r", "g", "e", "v", "run", "seed", "configuration"],
        [
            (n, _group(rank), *point, f"{run.folder} ({run.status})", seed(run), names[rank])
            for n, (rank, run, curve) in enumerate(curves_of_runs)
            for point in thin(curve, room)
        ],
    )


def _drawn(
    score: str, lines: alt.InlineData, bands: alt.InlineData, pointed: alt.InlineData, domain: list[float] | None
) -> Spec:
    groups = [str(rank) for rank in range(COLOURED + 1)]
    colour = alt.Color("g:N", legend=None, scale=alt.Scale(domain=groups, range=[*PALETTE, GREY]))
    dash = alt.StrokeDash("g:N", legend=None, scale=alt.Scale(domain=groups, range=[*DASHES, [1, 0]]))
    x = alt.X("e:Q", title="epoch", axis=alt.Axis(grid=False, tickMinStep=1, format="d"))
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(zero=False, domain=domain)
    y = alt.Y("v:Q", title=score, scale=scale)
    thin_lines = (
        alt.Chart(lines).mark_line(strokeWidth=1, opacity=0.35, clip=True).encode(x=x, y=y, detail="r:N", color=colour)
    )
    band = alt.Chart(bands).mark_area(opacity=0.13, clip=True)
    band = band.encode(x=x, y=alt.Y("low:Q", title=score, scale=scale), y2="high:Q", color=colour)
    mean = alt.Chart(bands).mark_line(strokeWidth=2.2, clip=True)
    mean = mean.encode(x=x, y=alt.Y("mean:Q", title=score, scale=scale), color=colour, strokeDash=dash)
    nearest = alt.selection_point(
        name="at", on="pointerover", nearest=True, fields=["r", "e"], empty=False, clear="pointerout"
    )
    tips = [
        "configuration:N",
        "run:N",
        "seed:N",
        alt.Tooltip("e:Q", title="epoch"),
        alt.Tooltip("v:Q", title=score, format=".5~g"),
    ]
    dots = alt.Chart(pointed).mark_point(size=60, filled=True, color=INK, clip=True)
    dots = dots.encode(x=x, y=y, opacity=alt.condition(nearest, alt.value(1), alt.value(0)), tooltip=tips).add_params(
        nearest
    )
    return spec(alt.layer(thin_lines, band, mean, dots), height=320)
