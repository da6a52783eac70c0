"""Reads the files of a run folder. One that is cut off, empty or another program's is refused in one line."""

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from normlab.errors import ConfigError, DamagedError
from normlab.folder.place import ROOT, shown

PARTS = {"task", "model", "norm", "data", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger"}

HEADER = {"defaults", "hydra"}  # the keys of config.yaml that let Hydra replay the run

# Keys of `trainer` that normlab reads and does not hand on to Lightning as they are.
OUR_TRAINER_KEYS = ("num_nodes", "strategy", "sync_batchnorm", "max_restarts", "timeout", "matmul_precision")

FORMAT = 1  # of the files that are written; a change that this version could not read raises it

NUMBER = (int, float, type(None))

TEXT = (str, type(None))

# The keys of result.json, with the types of their values.
RESULT: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "action": (str,),
    "status": (str,),
    "score": NUMBER,
    "score_name": TEXT,
    "score_mode": TEXT,
    "metrics": (dict,),
    "seconds": NUMBER,
    "epochs": NUMBER,
    "overrides": (list,),
    "config_hash": (str,),
}

NEEDED = {"status", "score", "overrides"}


def holds_run(path: Path) -> bool:
    return (path / "config.yaml").is_file()


def find_run(named: str) -> Path | None:
    """The folder of a run by its name, or else by its path; None where neither holds one."""
    return next(filter(holds_run, (ROOT / named, Path(named))), None)


def run_names() -> list[str]:
    """The names of the runs in the outputs folder, those of sweeps included."""
    found = [*ROOT.glob("*/config.yaml"), *ROOT.glob("*/*/config.yaml")]
    return [file.parent.relative_to(ROOT).as_posix() for file in found]


def read_config(path: Path) -> DictConfig:
    """The configuration of a run, without Hydra's own keys.

    Raises DamagedError, and ConfigError for interpolations, since they could read what lies outside the file.
    """
    _check_version(path)
    file = path / "config.yaml"
    config = load_config(file)
    for key in HEADER:
        config.pop(key, None)
    for key, value in _texts(OmegaConf.to_container(config)):
        if "${" in value:
            raise ConfigError(
                f"{shown(file)}: {key}={value} fetches a value from elsewhere, which a run's configuration never does"
            )
    return config


def load_config(file: Path) -> DictConfig:
    """A run's config.yaml as it stands. Raises DamagedError."""
    try:
        config = OmegaConf.load(file)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise damaged(file) from error
    tree = OmegaConf.to_container(config)
    sections = {key for key, value in tree.items() if isinstance(value, dict)} if isinstance(tree, dict) else set()
    overrides = tree.get("overrides") if isinstance(tree, dict) else None
    typed = isinstance(overrides, list) and all(isinstance(line, str) for line in overrides)
    if not (isinstance(config, DictConfig) and sections >= PARTS and typed):
        raise damaged(file)
    if missing := [key for key in OUR_TRAINER_KEYS if key not in config.trainer]:
        raise damaged(file, f"lacks trainer.{missing[0]}, and so is of an earlier normlab")
    return config


def read_result(path: Path) -> dict[str, Any]:
    """The folder's result.json; empty where there is none yet. Raises DamagedError."""
    file = path / "result.json"
    if not file.is_file():
        return {}
    _check_version(path)
    result = _read_json(file)
    if not isinstance(result, dict) or not result.keys() >= NEEDED:
        raise damaged(file)
    if not all(isinstance(value, RESULT.get(key, object)) for key, value in result.items()):
        raise damaged(file)
    return {"score_name": None, "score_mode": None, "metrics": {}, "epochs": None, "config_hash": "", **result}


def known_result(path: Path) -> dict[str, Any]:
    """The folder's result.json; empty where it is missing or damaged, since one bad job must not stop a sweep."""
    try:
        return read_result(path)
    except DamagedError:
        return {}


def read_environment(path: Path) -> list[dict[str, Any]]:
    """The folder's environment.json, an entry for each start; empty where there is none yet. Raises DamagedError."""
    file = path / "environment.json"
    starts = _read_json(file) if file.is_file() else []
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise damaged(file)
    return starts


def read_facts(file: Path, names: Collection[str] = ()) -> dict[str, Any]:
    """What a data set has written to a JSON file of the run folder; it must hold `names`. Raises DamagedError."""
    facts = _read_json(file)
    if not isinstance(facts, dict) or not facts.keys() >= set(names):
        raise damaged(file)
    return facts


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, one an epoch; none where there is no file yet.

    A last row that is cut off, as a killed process may leave it, is left out. Raises DamagedError.
    """
    rows = whole_rows(file)
    if file.is_file() and file.read_bytes().count(b"\n") != len(rows) + 1:
        raise damaged(file)
    return rows


def whole_rows(file: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv up to the first that is damaged or out of turn, with which a fit can go on.

    Raises DamagedError where the table of another program stands there.
    """
    if not file.is_file():
        return []
    try:
        header, *lines = [line.decode("utf-8", "replace") for line in file.read_bytes().split(b"\n")[:-1]]
        names = next(csv.reader([header], strict=True))
    except (OSError, ValueError, StopIteration, csv.Error) as error:
        raise damaged(file) from error
    if "epoch" not in names:
        raise damaged(file)
    rows: list[dict[str, str]] = []
    for line in lines:
        values = line.split(",")
        row = dict(zip(names, values, strict=False))
        if len(values) != len(names) or not all(map(_is_number, values)) or not row["epoch"].isdecimal():
            break
        if rows and int(row["epoch"]) != int(rows[-1]["epoch"]) + 1:
            break
        rows.append(row)
    return rows


def check_files(path: Path) -> None:
    """Raises DamagedError where a file is damaged, or another program's, that a run here would write anew."""
    if holds_run(path):
        load_config(path / "config.yaml")
    read_result(path)
    read_environment(path)
    whole_rows(path / "metrics.csv")
    for file in (path / "data.json", path / "table.json", path / "fingerprint.json"):
        if file.is_file():
            read_facts(file)


def damaged(file: Path, how: str = "is empty, cut off or of another program") -> DamagedError:
    return DamagedError(f"{shown(file)} {how}: put a whole one in its place, or move it away")


def _check_version(path: Path) -> None:
    """Raises DamagedError for the folder of a run of a later version, which may mean something else by its files."""
    try:
        result = json.loads((path / "result.json").read_text())
    except (OSError, ValueError, RecursionError):  # that is said where it is read
        return
    written = result.get("format") if isinstance(result, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise DamagedError(
            f"{shown(path)} is a run of a later version of normlab (its format is {written}, and this version knows "
            f"{FORMAT}): update normlab, or choose another name="
        )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file) from error


def _is_number(text: str) -> bool:
    """Whether a field of a table is empty or a number."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a tree of dicts and lists, with the key that each stands under."""
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, branch in branches:
        where = f"{key}.{name}".removeprefix(".")
        if isinstance(branch, str):
            yield where, branch
        yield from _texts(branch, where)
