"""Reads run folders, old or new, whole or half-written."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from normlab.errors import ConfigError
from normlab.folder.files import FORMAT
from normlab.folder.identity import REPLICATES

T = TypeVar("T")

ENDS = ("finished", "failed", "refused", "interrupted", "pruned")
OF_A_RUN = ("result.json", "config.yaml")
KEYS = re.compile(r"^(?=[A-Za-z_][\w-]*:(?:\s|$))", re.MULTILINE)  # a YAML file's own
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


@dataclass(frozen=True)
class Run:
    """What a folder tells about its run.

    status: one of ENDS; or unfinished, where the run is running or was killed; or damaged, where its files cannot be
    read. score: a finished run's; None where it is missing or not finite. config: config.yaml as it stands; empty where
    there is none. samples: how many each part of the data has; empty where that is not known. majority: the
    share of the most frequent class in each part, as far as it is known. skipped: how many batches were left out.
    """

    folder: Path
    status: str
    score: float | None
    score_name: str | None
    score_mode: str | None
    metrics: dict[str, float]
    seconds: float | None
    parameters: int | None
    error: str | None
    overrides: tuple[str, ...]
    config: dict[str, Any]
    samples: dict[str, int] = field(default_factory=dict)
    majority: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    tags: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether the score is missing for good, as the run failed; one that was stopped may still get a score."""
        return self.score is None and self.status in ("failed", "refused", "finished")

    @cached_property
    def replicate(self) -> tuple[Any, ...]:
        """The run's seed, the split's seed and the fold. Runs that share all three are compared in pairs."""
        typed = dict(line.split("=", 1) for line in self.overrides if "=" in line)
        data = self.config.get("data")
        known = {f"data.{key}": value for key, value in data.items()} if isinstance(data, dict) else {}
        known |= {"seed": self.config.get("seed")}
        values = (typed.get(key) if known.get(key) is None else known[key] for key in REPLICATES)
        return tuple(0 if (number := _number(value)) is None else int(number) for value in values)


def find_runs(folders: Iterable[Path], comparable: bool = True) -> list[Run]:
    """The fits in some folders and below them, in the order of their numbers.

    comparable: whether their scores must be of one kind. Raises ConfigError where they are not, where a folder is not
    there or holds no run, and for runs of a newer version.
    """
    by_path: dict[Path, Run] = {}
    for top in folders:
        if not top.is_dir():
            raise ConfigError(f"{top}: no such folder; give the folder of a sweep, or folders of runs")
        paths = sorted(run_folders(top), key=in_order)
        runs = {path.resolve(): run for path in paths if (run := read_run(path)) is not None}
        if not runs:
            raise ConfigError(f"{top} holds no run: expected folders with a result.json, as python train.py -m leaves")
        by_path |= runs
    runs = list(by_path.values())
    if comparable:
        _check_scores(runs)
    return runs


def read_curve(run: Run, column: str) -> list[tuple[int, float]]:
    """(epoch, value) of a column of metrics.csv, without rows that are cut off or not finite."""
    try:
        text = (run.folder / "metrics.csv").read_text()
    except (OSError, UnicodeDecodeError):
        return []
    whole = text[: text.rfind("\n") + 1]  # a row that is cut off may have lost digits
    rows = ((_number(row.get("epoch")), _number(row.get(column))) for row in csv.DictReader(io.StringIO(whole)))
    return [(int(epoch), value) for epoch, value in rows if epoch is not None and value is not None]


def read_json(file: Path) -> Any:
    """A JSON file; None where it is missing or cut off."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def read_record(file: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    """What `parse` makes of a JSON file that a sweep keeps.

    Raises ConfigError where the file is of a newer version, and where it lacks what `parse` looks for.
    """
    content = read_json(file)
    if isinstance(content, dict):
        _check_format(file, content)
    try:
        return parse(content)
    except ConfigError:
        raise  # of a run that belongs to it
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"{file} is empty, cut off or of another program: the same command writes it again"
        ) from error


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file; empty where it is missing, cut off or holds anything but keys."""
    try:
        content = yaml.load(file.read_text(), LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def read_config(file: Path) -> dict[str, Any]:
    """config.yaml; empty where it is missing, cut off or holds anything but keys.

    Runs of a sweep share most of it, so each of its keys is parsed once for each text that it has. Nobody may change
    what is returned.
    """
    try:
        text = file.read_text()
        parts = [_parsed(part) for part in KEYS.split(text) if part.strip()]
    except (OSError, ValueError, yaml.YAMLError):  # also what stands in one part and is named in another
        return read_yaml(file)
    if not all(part is None or isinstance(part, dict) for part in parts):
        return read_yaml(file)
    return {key: value for part in parts if part for key, value in part.items()}


@lru_cache(maxsize=10_000)
def _parsed(text: str) -> Any:
    return yaml.load(text, LOADER)


def is_run(folder: Path) -> bool:
    """Whether a folder is one run's, or an action's, and no sweep's."""
    return any((folder / name).is_file() for name in OF_A_RUN)


def run_folders(top: Path) -> Iterator[Path]:
    """The folders with a result.json or a config.yaml; what lies in a run folder, such as test/, is no run itself."""
    for path, below, files in os.walk(top):
        below[:] = [name for name in below if not name.startswith(".")]
        if {*OF_A_RUN} & set(files):
            below.clear()
            yield Path(path)


def in_order(path: Path) -> list[tuple[int, str]]:
    """A key to sort by: 9 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]


def read_run(path: Path) -> Run | None:
    """The run in a folder; None where it is not a fit. Raises ConfigError for a run of a newer version."""
    content, config = read_json(path / "result.json"), read_config(path / "config.yaml")
    result = content if isinstance(content, dict) else {}
    _check_format(path / "result.json", result)
    action = result.get("action", config.get("action", "fit" if (path / "result.json").is_file() else None))
    if action != "fit":
        return None
    status, metrics, name = result.get("status"), result.get("metrics"), result.get("score_name")
    overrides = _lines(result.get("overrides")) or _lines(config.get("overrides"))
    parameters, error = _number(result.get("parameters")), result.get("error")
    if (damaged := _damaged(path, {"result.json": status, "config.yaml": config})) is not None:
        status, error = "damaged", f"{damaged} is empty, cut off or of another program"
    return Run(
        folder=path,
        status=status if status in (*ENDS, "damaged") else "unfinished",
        score=_number(result.get("score")) if status == "finished" else None,
        score_name=name if isinstance(name, str) else None,
        score_mode=_mode(result.get("score_mode", config.get("score_mode")), name),
        metrics=_numbers(metrics),
        seconds=_number(result.get("seconds")),
        parameters=None if parameters is None else int(parameters),
        error=None if error is None else str(error),
        overrides=overrides,
        config=config,
        samples={part: int(count) for part, count in _numbers(result.get("samples")).items()},
        majority=_numbers(result.get("majority")),
        skipped=int(_number(result.get("skipped")) or 0),
        tags=_lines(result.get("tags")),
    )


def _check_format(file: Path, content: dict[str, Any]) -> None:
    """Raises ConfigError where a newer version wrote the file."""
    if (version := _number(content.get("format"))) is not None and version > FORMAT:
        raise ConfigError(f"{file} has format {content['format']}, this normlab knows {FORMAT}: update normlab")


def _lines(content: Any) -> tuple[str, ...]:
    """Overrides as they were typed; empty where the content is no list of texts."""
    are_lines = isinstance(content, list) and all(isinstance(line, str) for line in content)
    return tuple(content) if are_lines else ()


def _numbers(content: Any) -> dict[str, float]:
    """The finite numbers by their names; empty where the content has no names."""
    known = content if isinstance(content, dict) else {}
    return {str(name): number for name, value in known.items() if (number := _number(value)) is not None}


def _damaged(path: Path, files: dict[str, Any]) -> str | None:
    """The first file of a run that is there and has no content that could be read."""
    return next((name for name, content in files.items() if not content and (path / name).is_file()), None)


def _mode(mode: Any, name: Any) -> str | None:
    """The direction in which a score is better; the first versions' runs do not say it."""
    if mode in ("max", "min") or not isinstance(name, str):
        return mode if mode in ("max", "min") else None
    return "min" if name.rpartition("/")[2] in ("loss", "mse", "mae") else "max"


def _check_scores(runs: list[Run]) -> None:
    examples = {(run.score_name, run.score_mode): run.folder for run in runs if run.score_name is not None}
    if len(examples) > 1:
        lines = [f"  {name} ({mode}), such as {folder}" for (name, mode), folder in examples.items()]
        raise ConfigError("\n".join(["these runs have different scores; report them apart:", *lines]))


def _number(value: Any) -> float | None:
    """A finite number; None for everything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
