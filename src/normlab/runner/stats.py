"""Looks at a configuration's data and writes a report on it."""

import copy
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from normlab.config.instantiate import make
from normlab.data.common.base import DataModule
from normlab.data.common.targets import TargetColumn, target_columns
from normlab.data.stats.measure import Part, matches, measure
from normlab.data.stats.picture import draw
from normlab.data.stats.summary import Equal, report, report_unsplit
from normlab.data.stats.unsplit import unsplit_parts
from normlab.data.tables.frames import FrameTable
from normlab.errors import ConfigError, Problems
from normlab.folder.place import shown
from normlab.folder.writing import write_text
from normlab.runner.data import build_data

log = logging.getLogger(__name__)


def stats(config: DictConfig, folder: Path, data: Any = None) -> tuple[dict[str, float], Problems]:
    """Writes stats.txt and stats.png; returns the figures in short, and what training would refuse of a table.

    The figures are numbers of samples, missing values, duplicates and leaks. Samples are looked at as they are read:
    not standardised, not augmented. A table that cannot be split has the statistics of its files, without a picture.
    Raises ConfigError where nothing can be read.
    """
    data, problems = make(config, "data") if data is None else data, Problems()
    if isinstance(data, DataModule):
        data = copy.copy(data)  # one that was given from Python may be trained on afterwards
        data.splits, data.preprocess = {}, _only_tried(data, problems)
    try:
        data = build_data(config, folder, data)
    except ConfigError as error:
        if not isinstance(data, FrameTable) or not (parts := unsplit_parts(data)):
            raise
        problems.messages += error.messages or [str(error)]
        equal = _equal(parts)
        why = "not split, since it has to be mended first; cells that cannot be read count as missing"
        text = report_unsplit(f"{config.data._target_}: {why}", parts, equal)
        (folder / "stats.png").unlink(missing_ok=True)
    else:
        parts, target = measure(data), target_columns(data)
        equal = _equal(parts)
        text = report(_title(config, data, target), parts, target, equal)
        draw(folder / "stats.png", parts, target)
    listed = ["\n".join(["problems", *(f"  {message}" for message in problems.messages)])] if problems.messages else []
    write_text(folder / "stats.txt", "\n\n".join([text, *listed]) + "\n")
    files = (str(shown(file)) for name in ("stats.txt", "stats.png") if (file := folder / name).is_file())
    log.info(f"{text}\n\n{', '.join(files)}")
    return _figures(parts, equal), problems


def _only_tried(data: DataModule, problems: Problems) -> Callable[[Any], Callable[[Any], Any]]:
    """In place of `data.preprocess`: samples stay as they are; what it refuses of a table is gathered."""
    prepare = data.preprocess

    def look(train: Any) -> Callable[[Any], Any]:
        if isinstance(data, FrameTable):
            with problems.gather():
                prepare(train)
        return lambda x: x

    return look


def _equal(parts: Mapping[str, Part]) -> Equal:
    pairs = itertools.combinations_with_replacement(parts, 2)
    return {(a, b): matches(parts[a], parts[b]) for a, b in pairs}


def _figures(parts: Mapping[str, Part], equal: Equal) -> dict[str, float]:
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
