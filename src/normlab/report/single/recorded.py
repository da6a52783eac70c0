"""What `callbacks=recorder` has written of the norm layers: a heat map of layers and epochs for each measure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import altair as alt

from normlab.errors import DamagedError
from normlab.folder.recorded import FAINT, FILE, read_recorded
from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, inline, is_log, named, rows_height, spec, wrapped
from normlab.report.curves import thin
from normlab.report.single.of_answers import CHARTED, ROWS, Place
from normlab.report.single.words import figure

EPOCHS, COLUMNS = 60, 8  # the most epochs that are drawn, and in a table
PALEST = 0.06  # how opaque the lowest cell is

Row = Mapping[str, str]


@dataclass(frozen=True)
class Measure:
    """A measure that is drawn. is_share: of the layer's channels. about_one: its distance from 1 is what is drawn."""

    title: str
    says: str
    column: str
    is_share: bool = False
    about_one: bool = False

    def of(self, row: Row) -> float:
        """Its value in a row; NaN where there is none."""
        value = float(row[self.column] or "nan")
        return value / float(row["channels"] or "nan") if self.is_share else value


MEASURES = (
    Measure("drift", "running means − the batch’s, in the batch’s standard deviations", "drift"),
    Measure("variance ratio", "running variances ÷ the batch’s", "variance_ratio", about_one=True),
    Measure("dead channels", f"share with |γ| or values behind the activation below {FAINT}", "dead", is_share=True),
    Measure("saturated channels", "share of which the activation lets hardly anything through", "saturated", True),
    Measure("spread", "standard deviation of what the layer gives", "spread"),
    Measure("gradient", "norm of the gradient of the layer’s parameters", "gradient"),
    Measure("effective rate", "lr ÷ ‖w‖² of the weights in front of the layer", "effective_rate"),
)


def section(folder: Path, place: Place) -> tuple[dict[str, Any] | None, list[str]]:
    """What the template says of norms.csv, None where nothing was recorded; and what had to be left out."""
    try:
        rows = read_recorded(folder / FILE)
    except DamagedError as error:
        return None, [f"{error}."]
    if not rows:
        return None, []
    maps = {measure: cells for measure in MEASURES if (cells := _means(measure, rows))}
    absent = [measure for measure, cells in maps.items() if measure.is_share and not any(cells.values())]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    return {
        "figures": [
            (measure.title, measure.says, _range(cells), place(_heat(measure, cells)))
            for measure, cells in maps.items()
            if measure not in absent
        ],
        "steps": len({row["step"] for row in rows}),
        "absent": [measure.title for measure in absent],
        "undrawn": max(0, len(layers) - CHARTED),
    }, []


def _means(measure: Measure, rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """The mean of a measure in each epoch with recorded steps, by layer and epoch."""
    values: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if math.isfinite(value := measure.of(row)):
            values.setdefault((row["layer"], int(row["epoch"])), []).append(value)
    return {key: fmean(each) for key, each in values.items()}


def _range(cells: Mapping[tuple[str, int], float]) -> str:
    return f"from {figure(min(cells.values()))} to {figure(max(cells.values()))}"


def _heat(measure: Measure, cells: Mapping[tuple[str, int], float]) -> Chart:
    """A row for each layer, a column for each epoch; the higher a value, the darker its cell."""
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    epochs = sorted({epoch for _, epoch in cells})
    names, columns = [wrapped(layer) for layer in layers[:CHARTED]], {*thin(epochs, EPOCHS)}
    if measure.about_one:
        shades = {key: abs(math.log(value)) if value > 0 else math.inf for key, value in cells.items()}
    else:
        logarithmic = is_log([*cells.values()], searched_in_log=False)
        shades = {key: math.log(value) if logarithmic else value for key, value in cells.items()}
    shades = _stretched(shades)
    data = [
        (wrapped(layer), epoch, value, shades[layer, epoch])
        for (layer, epoch), value in cells.items()
        if layer in layers[:CHARTED] and epoch in columns
    ]
    shade = alt.Opacity("shade:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[PALEST, 1]))
    x = alt.X("epoch:O", title="epoch", axis=alt.Axis(labelAngle=0, labelOverlap=True, ticks=False, domain=False))
    tips = ["layer:N", "epoch:O", alt.Tooltip("value:Q", title=measure.title, format=".4~g")]
    chart = alt.Chart(inline(["layer", "epoch", "value", "shade"], data)).mark_rect(color=ACCENT)
    drawing = spec(chart.encode(x=x, y=named("layer", names), opacity=shade, tooltip=tips), height=rows_height(names))
    darkest = "furthest from 1" if measure.about_one else "highest"
    says = (
        f"{measure.title} of {len(layers)} norm layers over {len(epochs)} epochs, {_range(cells)}; the "
        f"{darkest} is the darkest."
    )
    shown = thin(epochs, COLUMNS)
    rows = [[layer, *(figure(cells.get((layer, epoch), math.nan)) for epoch in shown)] for layer in layers[:ROWS]]
    heads = ["layer", *(f"epoch {epoch}" for epoch in shown)]
    return Chart(f"recorded-{measure.title.replace(' ', '-')}", drawing, says, heads, rows)


def _stretched(shades: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Values from 0 to 1, the lowest and the highest of those that are finite."""
    finite = [value for value in shades.values() if math.isfinite(value)] or [0.0]
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return {key: min((value - low) / span, 1.0) for key, value in shades.items()}
