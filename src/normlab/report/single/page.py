"""report.html of one run: a single file that a browser shows without a network."""

from typing import Any

import numpy as np

from normlab.folder.recorded import FAINT
from normlab.report.curves import thin
from normlab.report.render import Page
from normlab.report.runs import read_curve
from normlab.report.single import about, charts, diagnosis, of_answers, recorded, words
from normlab.report.single.answers import MEAN, SCALE, SHIFT, VARIANCE, NormLayer, Spread
from normlab.report.single.of_answers import CHARTED, ROWS, Place
from normlab.report.single.story import PARTS, Story
from normlab.report.single.words import figure

EPOCHS = 40  # the most rows of the table of epochs
LONG = 12  # a longer table is folded away


def page(story: Story) -> str:
    """The page's HTML."""
    made = Page()
    over_epochs, unread = recorded.section(story.run.folder, made.place)
    return made.html(
        "run.html",
        words.headline(story),
        data=story.made,
        lead=words.lead(story),
        fine=words.fine(story),
        facts=[*about.facts(story)],
        missing=[*story.seen.missing, *unread],
        part=PARTS[story.part],
        curves=_curves(story, made.place),
        **({} if story.answers is None else of_answers.sections(story.answers, made.place)),
        recorded=over_epochs,
        layers=_layers(story.seen.layers, made.place),
        doctor=diagnosis.section(story.run.folder),
        weights=_weights(story),
        environment=about.environment(story),
        packages=about.packages(story),
        commands=[*about.commands(story)],
        long=LONG,
    )


def _curves(story: Story, place: Place) -> dict[str, Any] | None:
    """Loss and score over the epochs, of training and validation."""
    run = story.run
    score = (run.score_name or "val/loss").partition("/")[2]
    names = list(dict.fromkeys(["loss", score]))
    read = {name: {part: read_curve(run, f"{part}/{name}") for part in charts.PARTS} for name in names}
    drawn = [(name, curves) for name, curves in read.items() if any(curves.values())]
    if not drawn:
        return None
    columns = [
        (f"{part}/{name}", dict(curves[part])) for name, curves in drawn for part in charts.PARTS if curves[part]
    ]
    epochs: list[int] = sorted({epoch for _, values in columns for epoch in values})
    kept: list[int] = sorted({*thin(epochs, EPOCHS), *([] if story.best is None else [story.best])})
    rows = [
        (epoch, epoch == story.best, [figure(values.get(epoch, np.nan)) for _, values in columns]) for epoch in kept
    ]
    figures = [(name, place(charts.curve(name, curves, story.best))) for name, curves in drawn]
    return {
        "figures": figures,
        "columns": [name for name, _ in columns],
        "rows": rows,
        "thinned": len(kept) < len(epochs),
    }


def _layers(layers: list[NormLayer], place: Place) -> dict[str, Any] | None:
    """What the norm layers hold."""
    if not layers:
        return None
    quantities = [name for name in (MEAN, VARIANCE, SCALE, SHIFT) if any(name in layer.quantities for layer in layers)]
    drawn = layers[:CHARTED]
    figures = [
        (name, place(charts.quantity(name, drawn)))
        for name in quantities
        if any(name in each.quantities for each in drawn)
    ]
    rows = [
        [
            layer.name,
            layer.kind,
            f"{layer.channels:,}",
            *(_spread(layer.quantities.get(name)) for name in quantities),
            _dead(layer),
        ]
        for layer in layers[:ROWS]
    ]
    return {
        "quantities": quantities,
        "figures": figures,
        "rows": rows,
        "dead": _dead_in_all(layers),
        "undrawn": len(layers) - len(drawn),
    }


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return words.NOTHING
    return f"{figure(spread.mean)} ± {figure(spread.sd)} ({figure(spread.lowest)} to {figure(spread.highest)})"


def _dead(layer: NormLayer) -> str:
    counts = [(layer.faint, "γ"), (layer.constant, "variance")]
    said = [f"{count} by {why}" for count, why in counts if count]
    return ", ".join(said) or ("0" if any(count is not None for count, _ in counts) else words.NOTHING)


def _dead_in_all(layers: list[NormLayer]) -> str:
    """A sentence on the channels of all layers that carry nothing."""
    faint = [layer.faint for layer in layers if layer.faint is not None]
    constant = [layer.constant for layer in layers if layer.constant is not None]
    said = [f"{sum(faint)} have |γ| below {FAINT} and carry almost nothing"] if faint else []
    said += [f"{sum(constant)} have a running variance of at most ε, as their input hardly varies"] if constant else []
    return f"Of {sum(layer.channels for layer in layers):,} channels {', and '.join(said)}." if said else ""


def _weights(story: Story) -> dict[str, Any] | None:
    weights = story.seen.weights
    if not weights:
        return None
    total, most = sum(each.count for each in weights), max(each.count for each in weights)
    rows = [
        (
            each.name,
            " × ".join(map(str, each.shape)) or "1",
            f"{each.count:,}",
            f"{each.count / total:.1%}",
            100 * each.count / most,
        )
        for each in weights[:ROWS]
    ]
    rows = [(*row[:-1], f"{row[-1]:.1f}") for row in rows]
    return {"rows": rows, "total": f"{total:,}", "hidden": max(0, len(weights) - ROWS)}
