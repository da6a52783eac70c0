"""The charts of a laboratory's page; each has its numbers as a table beside it or below."""

from collections.abc import Sequence
from itertools import count

import altair as alt

from normlab.report.chart import Chart, Spec
from normlab.report.charts import ACCENT, GRID, INK, MUTED, ends, inline, named, rows_height, shown_mean, spec, wrapped
from normlab.report.claims import words
from normlab.report.claims.findings import Laboratory, Result, reached
from normlab.report.claims.verdict import Effect, Evidence, Finding, Verdict, filled
from normlab.report.wording import number

GOOD, BAD, MIXED, PAPER = (f"var(--{name})" for name in ("good", "bad", "mixed", "paper"))
COLOURS = {
    Verdict.SUPPORTED: GOOD,
    Verdict.CONTRADICTED: BAD,
    Verdict.DEPENDS: MIXED,
    Verdict.INCONCLUSIVE: MUTED,
    Verdict.NONE: MUTED,
}
FINDINGS = {Finding.HOLDS: (GOOD, "circle"), Finding.FAILS: (BAD, "diamond"), Finding.UNCLEAR: (MUTED, "square")}
ROW = 22  # pixels
TICKS = [sign * size for sign in (-1, 1) for size in (1, 3, 10, 30, 100, 300)] + [0]
NAMES = alt.ExprRef("min(190, width * 0.4)")  # where the names of the pairs end
NUMBERS = "max(0, min(200, (width - 560) * 2))"  # the room for numbers; a narrow page has none
HEADS = ["claim", "pair", "effect", "95 % interval", "in margins", "finding", "verdict"]


def overview(lab: Laboratory) -> Chart:
    """All claims: each pair's deciding effect in units of the margin with its interval, and the verdicts."""
    heads, rows, cells = [], [], []
    place = count()
    for result in lab.results:
        heads.append((next(place), result.claim.claim, result.verdict.value))
        for evidence, (first, *_) in zip(result.pairs, result.judged.effects, strict=True):
            margin, (mean, low, high) = result.claim.margin, ends(first.estimate)
            row = next(place), evidence.name, mean / margin, low / margin, high / margin, first.finding or ""
            rows.append((*row, _figures(result, evidence, first)))
            cells.append([result.claim.claim, evidence.name, *words.cells(result, first), result.verdict.value])
    drawing = _forest(heads, rows, next(place))
    verdicts = "; ".join(f"{result.claim.claim} {result.verdict.value}" for result in lab.results)
    return Chart("claims", drawing, f"Verdicts: {verdicts}.", HEADS, cells, text=2)


def _figures(result: Result, evidence: Evidence, effect: Effect) -> str:
    """What stands beside a row."""
    if evidence.missing is not None:
        return "was not run"
    if effect.finding is None:
        return "not at its end"
    mean, reach, *_ = words.cells(result, effect)
    return f"{mean}  ({reach})" if effect.estimate.count else words.named(effect)


def _forest(heads: Sequence[tuple], pairs: Sequence[tuple], rows: int) -> Spec:
    """A row for each claim with its verdict, and below it a row for each pair. A symlog scale brings far ones near."""
    known = [value for row in pairs for value in row[3:5] if value == value]
    domain = [min([-1.5, *known]), max([1.5, *known])]
    inner = [NAMES, alt.ExprRef(f"width - {NUMBERS} - 12")]
    scale = alt.Scale(type="symlog", constant=1, domain=domain, range=inner, nice=False)
    axis = alt.Axis(
        values=sorted(tick for tick in TICKS if domain[0] <= tick <= domain[1]),
        format="d",
        labelOverlap=False,
        domain=False,
    )
    x = alt.X("value:Q", title="effect in margins: from 1 on it counts", scale=scale, axis=axis)
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[rows - 0.5, -0.5], nice=False, zero=False))
    data = inline(["row", "name", "value", "low", "high", "finding", "figures"], pairs)
    titles = inline(["top", "row", "bottom", "name", "verdict"], [(r - 0.5, r, r + 0.5, *rest) for r, *rest in heads])
    band = alt.Chart(inline(["value", "end", "row", "bottom"], [(-1, 1, -0.5, rows - 0.5)]))
    band = band.mark_rect(color=GRID, opacity=0.45).encode(x=x, x2="end:Q", y=y, y2="bottom:Q")
    zero = alt.Chart(inline(["value"], [(0,)])).mark_rule(color=INK, strokeWidth=1).encode(x=x)
    strip = (
        alt.Chart(titles)
        .mark_rect(color=PAPER)
        .encode(x=alt.value(0), x2=alt.value("width"), y=alt.Y("top:Q", axis=None), y2="bottom:Q")
    )
    bold = alt.Chart(titles).mark_text(
        align="left", fontWeight="bold", fontSize=13, color=INK, limit=alt.ExprRef("width - 110")
    )
    bold = bold.encode(x=alt.value(0), y=y, text="name:N")
    colour = alt.Color("verdict:N", legend=None, scale=alt.Scale(domain=[*COLOURS], range=[*COLOURS.values()]))
    verdict = alt.Chart(titles).mark_text(align="right", fontWeight="bold", fontSize=13)
    verdict = verdict.encode(x=alt.value("width"), y=y, text="verdict:N", color=colour)
    label = alt.Chart(data).mark_text(
        align="left", fontSize=12, color=MUTED, limit=alt.ExprRef("min(170, width * 0.38)")
    )
    label = label.encode(x=alt.value(14), y=y, text="name:N")
    shown = alt.Chart(data).mark_text(
        align="right", fontSize=12, color=MUTED, opacity=alt.ExprRef(f"{NUMBERS} < 180 ? 0 : 1")
    )
    shown = shown.encode(x=alt.value("width"), y=y, text="figures:N")
    return spec(
        alt.layer(band, zero, strip, bold, verdict, label, shown, *_intervals(data, x, y)).resolve_scale(
            color="independent"
        ),
        height=ROW * rows + 40,
    )


def _intervals(data: alt.InlineData, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    kinds = [*FINDINGS]
    colours, shapes = zip(*FINDINGS.values(), strict=True)
    colour = alt.Color("finding:N", legend=None, scale=alt.Scale(domain=kinds, range=[*colours]))
    shape = alt.Shape("finding:N", legend=None, scale=alt.Scale(domain=kinds, range=[*shapes]))
    drawn = alt.Chart(data).transform_filter("isValid(datum.value)")
    tips = ["name:N", alt.Tooltip("figures:N", title="effect"), "finding:N"]
    bars = drawn.mark_rule(strokeWidth=2.5).encode(y=y, x=alt.X("low:Q"), x2="high:Q", color=colour)
    dots = drawn.mark_point(size=80, filled=True, opacity=1)
    return [bars, dots.encode(y=y, x=x, color=colour, shape=shape, tooltip=tips)]


def arms(result: Result, evidence: Evidence, measure: str) -> Chart:
    """The measure of each arm in a pair: every fresh run, mean and interval. Crosses are runs that diverged."""
    rows, dots = [], []
    for name, own in evidence.arms.items():
        estimate, label = reached(evidence, name), wrapped(name)
        rows.append((label, *ends(estimate), shown_mean(estimate)))
        for seed, value in filled(evidence, own).items():
            dots.append((label, value, seed, "diverged" if seed in own.diverged else "finished"))
    order = [row[0] for row in rows]
    y = named("arm", order)
    x = alt.X("value:Q", title=measure, scale=alt.Scale(zero=False, nice=True))
    kinds = ["finished", "diverged"]
    shape = alt.Shape("ended:N", legend=None, scale=alt.Scale(domain=kinds, range=["circle", "M-1,-1L1,1M-1,1L1,-1"]))
    runs = alt.Chart(inline(["arm", "value", "seed", "ended"], dots)).mark_point(size=26, opacity=0.75, strokeWidth=1.2)
    tips = ["arm:N", "seed:N", "ended:N", alt.Tooltip("value:Q", format=".5~g")]
    runs = runs.encode(y=y, x=x, shape=shape, color=alt.value(MUTED), tooltip=tips)
    means = alt.Chart(inline(["arm", "value", "low", "high", "mean"], rows))
    bars = means.mark_rule(strokeWidth=2, color=ACCENT).encode(y=y, x=alt.X("low:Q", title=measure), x2="high:Q")
    middle = means.mark_point(size=80, filled=True, opacity=1, color=ACCENT, shape="diamond")
    middle = middle.encode(y=y, x=x, tooltip=["arm:N", alt.Tooltip("mean:N", title=measure)])
    drawing = spec(alt.layer(runs, bars, middle), height=rows_height(order))
    reach = ", ".join(f"{name} {number(reached(evidence, name).mean, words.places(result))}" for name in evidence.arms)
    return Chart(
        f"{result.claim.name}-{evidence.name}",
        drawing,
        f"{measure} on {evidence.name}: {reach}.",
        elsewhere="the table of the arms",
    )
