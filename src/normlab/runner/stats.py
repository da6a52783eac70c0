"""Looks at a configuration's data and writes a report on it."""

import copy
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from normlab.config.instantiate import make
from normlab.data.common.base import DataModule
from normlab.data.common.targets import TargetColumn, target_columns
from normlab.data.stats.measure import matches, measure
from normlab.data.stats.picture import draw
from normlab.data.stats.summary import report
from normlab.folder.place import shown
from normlab.folder.writing import write_text
from normlab.runner.data import build_data

log = logging.getLogger(__name__)


def stats(config: DictConfig, folder: Path, data: Any = None) -> dict[str, float]:
    """Writes stats.txt and stats.png, and returns the figures in short: samples, missing values, duplicates, leaks.

    Samples are looked at as they are read: not standardised, not augmented. Raises ConfigError.
    """
    data = make(config, "data") if data is None else data
    if isinstance(data, DataModule):
        data = copy.copy(data)  # one that was given from Python may be trained on afterwards
        data.splits, data.preprocess = {}, lambda train: lambda x: x
    data = build_data(config, folder, data)
    parts, target = measure(data), target_columns(data)
    pairs = itertools.combinations_with_replacement(parts, 2)
    equal = {(a, b): matches(parts[a], parts[b]) for a, b in pairs}
    text = report(_title(config, data, target), parts, target, equal)
    write_text(folder / "stats.txt", text + "\n")
    draw(folder / "stats.png", parts, target)
    log.info(f"{text}\n\n{shown(folder / 'stats.txt')}, {shown(folder / 'stats.png')}")
    return {
        **{name: len(part.targets) for name, part in parts.items()},
        "missing": sum(part.missing for part in parts.values()),
        "duplicates": sum(len(pairs) for (a, b), pairs in equal.items() if a == b),
        "leaks": sum(len(pairs) for (a, b), pairs in equal.items() if a != b),
    }


def _title(config: DictConfig, data: Any, target: Sequence[TargetColumn]) -> str:
    kind = f"{len(target[0].classes)} classes" if len(target) == 1 else f"{len(target)} labels, each of two classes"
    if not target[0].classes:
        kind = f"a target of width {len(target)} to regress"
    shape = getattr(data, "input_shape", None)  # a table from a file has one after preprocessing
    shaped = f", samples of {'×'.join(map(str, shape))}" if shape else ""
    noise = config.data.get("label_noise")
    noisy = f"; {noise:.0%} of the training labels are wrong by data.label_noise" if noise else ""
    whose = "" if isinstance(data, DataModule) else "; own data, as its loaders give it"
    return f"{config.data._target_}: {kind}{shaped}{noisy}{whose}"
