"""All runs in a table, in which a reader finds any of them, and in which keys two of them differ."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from normlab.folder.files import HEADER
from normlab.folder.identity import ELSEWHERE
from normlab.report import wording
from normlab.report.charts import seed
from normlab.report.comparison import counts
from normlab.report.grid import Cell, Grid, Head, config_columns
from normlab.report.runs import Run
from normlab.report.settings import Settings, as_text, shortened, telling_digits

NO_DIFFERENCE = (*HEADER, "overrides", "name")  # keys of config.yaml that repeat the others, or name the run


def runs_grid(settings: Sequence[tuple[Run, Settings]], score: str, tests: Sequence[str], folder: Path) -> Grid:
    """All runs, with their settings. tests: metrics that have a column. folder: where the page is to lie."""
    keys = list(dict.fromkeys(key for _, own in settings for key in own))
    digits = telling_digits([dict(items) for items in {tuple(own.items()) for _, own in settings}])
    heads = [Head("run", "key"), Head("status", "key"), Head(score, "score"), Head("seed", "key")]
    heads += [*(Head(key, "key") for key in keys), *map(Head, tests), Head("seconds")]
    names = run_names([run for run, _ in settings])
    rows = [
        _row(run, linked(run, names[run.folder], folder), [shortened(own.get(key, ""), digits) for key in keys], tests)
        for run, own in settings
    ]
    return Grid("runs", "runs", heads, rows, configs=config_columns(_flat([run for run, _ in settings])))


def run_names(runs: Sequence[Run]) -> dict[Path, str]:
    """The last parts of the runs' folders, as many as tell them apart."""
    most = max(len(run.folder.parts) for run in runs)
    for count in range(1, most + 1):
        names = {run.folder: "/".join(run.folder.parts[-count:]) for run in runs}
        if len(set(names.values())) == len(names):
            return names
    raise AssertionError("two runs have one folder")


def linked(run: Run, name: str, folder: Path) -> Cell:
    """A run's name, which leads to its page where it has one. folder: where the link stands."""
    file = run.folder.absolute() / "report.html"
    if not file.is_file() or file.parent == folder.absolute():
        return name
    return [(name, quote(os.path.relpath(file, folder.absolute())))]


def _row(run: Run, name: Cell, values: Sequence[str], tests: Sequence[str]) -> list[Cell]:
    score = _figure(run.score if counts(run) else None)
    tested = (_figure(run.metrics.get(test)) for test in tests)
    return [name, run.status, score, seed(run), *values, *tested, wording.number(run.seconds, 1)]


def _figure(value: float | None) -> str:
    return wording.NOTHING if value is None else f"{value:.5g}".replace("-", "−")


def _flat(runs: Sequence[Run]) -> list[Settings]:
    """The configuration of each run under dotted keys, without where its data lay, which is the reader's affair.

    What runs share, by read_config, is done once.
    """
    done: dict[tuple[str, int], Settings] = {}
    flat = []
    for run in runs:
        settings: Settings = {}
        for key, value in run.config.items():
            if key not in NO_DIFFERENCE:
                if (key, id(value)) not in done:
                    dotted = _dotted(key, value).items()
                    done[key, id(value)] = {name: text for name, text in dotted if name not in ELSEWHERE}
                settings |= done[key, id(value)]
        flat.append(settings)
    return flat


def _dotted(key: str, value: Any) -> Settings:
    if not isinstance(value, dict) or not value:
        return {key: as_text(value)}
    return {name: text for k, v in value.items() for name, text in _dotted(f"{key}.{k}", v).items()}
