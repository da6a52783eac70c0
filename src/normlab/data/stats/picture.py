"""The figures of a data set as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from normlab.data.common.targets import TargetColumn
from normlab.data.stats.measure import SAMPLES, Part, counted, counts
from normlab.folder.writing import write_with

CLASSES = 16  # the picture shows so many of each
COLUMNS = 24
TARGETS = 4
BINS = 30
GREYS = {"train": "0.35", "val": "0.6", "test": "0.8"}


def draw(file: Path, parts: Mapping[str, Part], target: Sequence[TargetColumn]) -> None:
    """The target beside samples of each class (images), or beside histograms of the columns (tables).

    The target is drawn as counts of its classes, or as a histogram of each of its first columns.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.6))
    left, right = halves
    train = parts["train"]
    classes = target[0].classes if len(target) == 1 else ()  # a sample of several columns has no class of its own
    if target[0].classes:
        _draw_counts(left.subplots(), parts, target, coloured=bool(classes) and train.frame is not None)
    else:
        for place, axes in enumerate(left.subplots(min(len(target), TARGETS), squeeze=False).flat):
            _draw_target(axes, parts, place, target[place].key("target"))
    left.legend(loc="outside lower center", ncols=len(parts))
    if train.frame is not None:
        _draw_columns(right, train.frame, train.targets, classes)
    elif train.shown and train.shown[0][0].ndim == 3:
        _draw_samples(right, train, classes)
    write_with(file, lambda part: figure.savefig(part, format="png", dpi=110))


def _draw_counts(axes: Axes, parts: Mapping[str, Part], target: Sequence[TargetColumn], coloured: bool) -> None:
    classes = counted(target)
    of = {name: counts(part.targets, target).numpy() for name, part in parts.items()}
    shown = _shown_classes(of["train"])
    start = np.zeros(len(shown))
    for name, count in of.items():
        axes.barh(range(len(shown)), count[shown], left=start, color=GREYS[name], label=name)
        start += count[shown]
    axes.set_yticks(range(len(shown)), [_short(classes[c]) for c in shown])
    if coloured:
        for tick, colour in zip(axes.get_yticklabels(), _colours(len(shown)), strict=True):
            tick.set_color(colour)
    axes.invert_yaxis()
    more = f", {len(shown)} of {len(classes)}" if len(shown) < len(classes) else ""
    axes.set(xlabel="samples", title=f"{'classes' if len(target) == 1 else 'labels'}{more}")


def _draw_target(axes: Axes, parts: Mapping[str, Part], place: int, title: str) -> None:
    everything = torch.cat([part.targets[:, place] for part in parts.values()]).numpy()
    edges = np.histogram_bin_edges(everything, BINS).tolist()
    values = [part.targets[:, place].numpy() for part in parts.values()]
    labels = list(parts) if place == 0 else None  # the legend names each part once
    axes.hist(values, edges, stacked=True, color=[GREYS[name] for name in parts], label=labels)
    axes.set(ylabel="samples", title=_short(title, 40))


def _draw_samples(figure: Any, train: Part, classes: Sequence[str]) -> None:
    shown = _shown_classes(torch.bincount(train.targets, minlength=len(classes)).numpy()) if classes else [0]
    grid = figure.subplots(len(shown), SAMPLES, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    low, high = train.moments.low, max(train.moments.high, train.moments.low + 1e-12)
    for row, label in zip(grid, shown, strict=True):
        images = [x for x, y in train.shown if y == label]
        for axes, image in zip(row, images, strict=False):
            axes.imshow(_pixels((image.double() - low) / (high - low)), cmap="gray", vmin=0, vmax=1)
        if classes:
            row[0].text(-0.1, 0.5, _short(classes[label]), transform=row[0].transAxes, ha="right", va="center")
    figure.suptitle("the first samples of train" + (", of each class" if classes else ""))


def _draw_columns(figure: Any, frame: pd.DataFrame, targets: Tensor, classes: Sequence[str]) -> None:
    names = list(frame)[:COLUMNS]
    across = min(4, math.isqrt(len(names) - 1) + 1)
    grid = figure.subplots(-(-len(names) // across), across, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    labels, shown, colours = np.zeros(len(targets), dtype=int), np.zeros(1, dtype=int), ["tab:blue"]
    if classes:
        labels = targets.flatten().numpy()
        shown = _shown_classes(np.bincount(labels, minlength=len(classes)))
        colours = _colours(len(shown))
    for axes, name in zip(grid.flat, names, strict=False):
        values, ticks = _binned(frame[name])
        known = np.isfinite(values)
        if known.any():
            edges = np.histogram_bin_edges(values[known], BINS) if ticks is None else np.arange(len(ticks) + 1) - 0.5
            axes.hist([values[known & (labels == label)] for label in shown], edges, stacked=True, color=colours)
        if ticks is not None:
            axes.set_xticks(range(len(ticks)), [_short(tick, 8) for tick in ticks], rotation=60, fontsize=6)
        axes.set_title(_short(name, 24), fontsize=8)
        axes.tick_params(labelsize=6)
    more = f", {len(names)} of {frame.shape[1]}" if len(names) < frame.shape[1] else ""
    figure.suptitle(f"columns of train{more}" + (", in the colours of the classes" if classes else ""))


def _binned(column: Any) -> tuple[np.ndarray, list[str] | None]:
    """Numbers, or of categories the places of the most frequent ones, with their names."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan), None
    usual = [str(value) for value in column.value_counts().index[:8]]
    places = column.astype(str).map({value: place for place, value in enumerate(usual)})
    return places.to_numpy(dtype=float, na_value=np.nan), usual


def _shown_classes(counts: np.ndarray) -> np.ndarray:
    """All classes, or of many the largest, in their order."""
    return np.sort(np.argsort(-counts, kind="stable")[:CLASSES])


def _pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) as matplotlib draws it."""
    return image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()


def _short(name: Any, most: int = 16) -> str:
    text = str(name).replace("$", r"\$")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _colours(count: int) -> Sequence[Any]:
    """A colour for each of so many classes, up to CLASSES."""
    return matplotlib.colormaps["tab10" if count <= 10 else "tab20"].colors[:count]  # pyright: ignore
