"""The charts of a run's page; the numbers of each stand in a table that its section has in any case."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, GREY, INK, MUTED, PALETTE, inline, named, rows_height, spec, wrapped
from normlab.report.curves import POINTS, Curve, thin
from normlab.report.single.answers import VARIANCE, NormLayer
from normlab.report.single.calibration import Calibration
from normlab.report.single.classes import ClassScore
from normlab.report.wording import listed

PARTS = ("train", "val")
LINES = {"train": [1, 0], "val": [5, 3]}  # drawn so, beside their colours
BELOW = "the table below"
DOTS = 1500  # the most samples in a chart; the page says where there are more


def curve(name: str, curves: dict[str, Curve], best: int | None) -> Chart:
    """A metric over the epochs, of the training and the validation part. best: the epoch that is marked."""
    rows = [(part, *point) for part, points in curves.items() for point in thin(points, POINTS)]
    data = inline(["part", "epoch", "value"], rows)
    parts = [*PARTS]
    colour = alt.Color("part:N", legend=None, scale=alt.Scale(domain=parts, range=PALETTE[:2]))
    dash = alt.StrokeDash("part:N", legend=None, scale=alt.Scale(domain=parts, range=[*LINES.values()]))
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(grid=False, values=_ticks(curves), format="d"))
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False))
    tips = ["part:N", "epoch:Q", alt.Tooltip("value:Q", title=name, format=".5~g")]
    lines = alt.Chart(data).mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, strokeDash=dash)
    dots = alt.Chart(data).mark_point(size=22, filled=True, opacity=1).encode(x=x, y=y, color=colour, tooltip=tips)
    layers = [lines, dots]
    if best is not None:
        mark = alt.Chart(inline(["epoch", "text"], [(best, "best")]))
        layers = [mark.mark_rule(color=INK, strokeDash=[2, 3]).encode(x=x), *layers]
        ends = curves["val"] or curves["train"]
        rises = ends[-1][1] > ends[0][1]  # the word stands on the side that the curves have left
        early = 2 * best < ends[-1][0]  # the word stands away from the axis
        text = mark.mark_text(
            color=INK, align="left" if early else "right", dx=4 if early else -4, dy=-8 if rises else 8
        )
        layers.append(text.encode(x=x, y=alt.value("height" if rises else 0), text="text:N"))
    says = f"{name} over the epochs, of {listed([part for part in parts if curves[part]])}."
    return Chart(f"curve-{name}", spec(alt.layer(*layers), height=240), says, elsewhere=BELOW)


def _ticks(curves: dict[str, Curve]) -> list[int]:
    """A few whole epochs."""
    last = max(epoch for points in curves.values() for epoch, _ in points)
    step = next(step * 10**zeros for zeros in range(9) for step in (1, 2, 5) if last <= 8 * step * 10**zeros)
    return [*range(0, last + 1, step)]


def reliability(calibration: Calibration) -> Chart:
    """The share that is right against the confidence, with Wilson's intervals and the line of perfect calibration."""
    rows = [(b.confidence, b.right.value, b.right.low, b.right.high, b.count) for b in calibration.bins]
    data = inline(["confidence", "right", "low", "high", "samples"], rows)
    scale = alt.Scale(domain=[0, 1])
    lowest = min([b.confidence for b in calibration.bins] + [b.right.low for b in calibration.bins])
    if lowest > 0.5:
        scale = alt.Scale(domain=[0.5, 1])
    x = alt.X("confidence:Q", title="probability of the answer", scale=scale)
    y = alt.Y("right:Q", title="share that is right", scale=scale)
    ends = inline(["confidence", "right"], [(end, end) for end in (scale.domain[0], scale.domain[1])])  # pyright: ignore
    perfect = alt.Chart(ends).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    bars = alt.Chart(data).mark_rule(color=ACCENT, strokeWidth=2)
    bars = bars.encode(x=x, y=alt.Y("low:Q", title="share that is right", scale=scale), y2="high:Q")
    tips = [alt.Tooltip(f"{name}:Q", format=".3~f") for name in ("confidence", "right", "low", "high")]
    dots = alt.Chart(data).mark_point(color=ACCENT, filled=True, size=60, opacity=1)
    drawing = spec(alt.layer(perfect, bars, dots.encode(x=x, y=y, tooltip=[*tips, "samples:Q"])), height=320)
    return Chart("calibration", drawing, "Share of right answers by the probability of the answer.", elsewhere=BELOW)


def class_scores(scores: Sequence[ClassScore]) -> Chart:
    """Precision and recall of each class with their intervals."""
    rows = [
        (wrapped(score.name), kind, value.value, value.low, value.high)
        for score in scores
        for kind, value in (("precision", score.precision), ("recall", score.recall))
        if value.value == value.value
    ]
    data = inline(["class", "kind", "value", "low", "high"], rows)
    kinds = ["precision", "recall"]
    names = [wrapped(score.name) for score in scores]
    y = named("class", names)
    offset = alt.YOffset("kind:N", sort=kinds)
    colour = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=PALETTE[:2]))
    shape = alt.Shape("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=["circle", "diamond"]))
    scale = alt.Scale(zero=False, nice=True)
    bars = alt.Chart(data).mark_rule(strokeWidth=2)
    bars = bars.encode(y=y, yOffset=offset, x=alt.X("low:Q", title=None, scale=scale), x2="high:Q", color=colour)
    dots = alt.Chart(data).mark_point(size=60, filled=True, opacity=1)
    tips = ["class:N", "kind:N", *(alt.Tooltip(f"{name}:Q", format=".3~f") for name in ("value", "low", "high"))]
    dots = dots.encode(y=y, yOffset=offset, x=alt.X("value:Q", scale=scale), color=colour, shape=shape, tooltip=tips)
    drawing = spec(alt.layer(bars, dots), height=rows_height(names))
    return Chart("classes", drawing, f"Precision and recall of {len(scores)} classes.", elsewhere=BELOW)


def residuals(truth: np.ndarray, predicted: np.ndarray) -> Chart:
    """Prediction − truth of each sample (N,) against its prediction; of very many the farthest off and others."""
    off = predicted - truth
    order = np.argsort(-np.abs(off), kind="stable")
    farthest, others = order[: DOTS // 3], order[DOTS // 3 :]
    step = max(1, -(-len(others) // (DOTS - len(farthest))))
    places = [*farthest.tolist(), *others[::step].tolist()]
    rows = [(float(predicted[n]), float(off[n]), float(truth[n]), n + 1) for n in places]
    data = inline(["prediction", "off", "truth", "sample"], rows)
    x = alt.X("prediction:Q", title="prediction", scale=alt.Scale(zero=False))
    y = alt.Y("off:Q", title="prediction − truth")
    tips = ["sample:Q", *(alt.Tooltip(f"{name}:Q", format=".5~g") for name in ("prediction", "truth", "off"))]
    zero = alt.Chart(inline(["off"], [(0,)])).mark_rule(color=INK, strokeDash=[4, 4]).encode(y=y)
    dots = alt.Chart(data).mark_point(size=26, color=ACCENT, opacity=0.7).encode(x=x, y=y, tooltip=tips)
    says = f"Prediction − truth against prediction, of {len(rows)} samples."
    return Chart("residuals", spec(alt.layer(dots, zero), height=280), says, elsewhere="the tables beside it")


def quantity(name: str, layers: Sequence[NormLayer]) -> Chart:
    """One quantity of each norm layer: a line from the lowest channel to the highest, a bar with half of them."""
    spreads = [(wrapped(layer.name), layer.quantities[name]) for layer in layers if name in layer.quantities]
    rows = [(layer, s.lowest, s.lower, s.median, s.upper, s.highest) for layer, s in spreads]
    data = inline(["layer", "lowest", "lower", "median", "upper", "highest"], rows)
    positive = name == VARIANCE and all(s.lowest > 0 for _, s in spreads)
    scale = alt.Scale(type="log", nice=True) if positive else alt.Scale(zero=False, nice=True)
    names = [layer for layer, _ in spreads]
    y = named("layer", names)
    x = alt.X("lowest:Q", title=name, scale=scale)
    tips = [
        "layer:N",
        *(alt.Tooltip(f"{end}:Q", format=".4~g") for end in ("lowest", "lower", "median", "upper", "highest")),
    ]
    whole = alt.Chart(data).mark_rule(color=MUTED).encode(y=y, x=x, x2="highest:Q", tooltip=tips)
    half = (
        alt.Chart(data)
        .mark_bar(color=ACCENT, height=8)
        .encode(y=y, x=alt.X("lower:Q", scale=scale), x2="upper:Q", tooltip=tips)
    )
    middle = alt.Chart(data).mark_tick(color=INK, thickness=2, height=16)
    drawing = spec(alt.layer(whole, half, middle.encode(y=y, x=alt.X("median:Q", scale=scale))), rows_height(names))
    says = f"{name} of {len(rows)} norm layers: how it is spread over their channels."
    return Chart("layers-" + "-".join(name.split()), drawing, says, elsewhere=BELOW)
