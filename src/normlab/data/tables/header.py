"""What can be said of a table's keys by its header alone. Imports no pandas."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normlab.data.tables.text import check_file, find_layout, is_parquet
from normlab.errors import ConfigError, Problems, did_you_mean
from normlab.folder.files import read_facts

FILES = {"train": "path", "val": "val_path", "test": "test_path"}  # a part, and the key of its file
PREDICTED = ("target", "prediction")  # columns of predictions.csv, of several targets each with the target's name
LISTS = ("numeric", "categorical", "drop")


def column_names(target: Any) -> list[str]:
    """The columns that `data.target` names: one, or those of a list."""
    return [*map(str, target)] if isinstance(target, Iterable) and not isinstance(target, str) else [str(target)]


def check_table(data: Mapping[str, Any]) -> None:
    """Raises ConfigError where the keys of `data=csv` or `data=parquet` name files or columns that are not there."""
    for key, what in (("path", "the file to read"), ("target", "the column to learn, or several as [a,b]")):
        if data[key] == "???":
            raise ConfigError(f"data.{key}= is needed: {what}")
    problems = Problems()
    for key in FILES.values():
        if data[key] is not None:
            with problems.gather():
                check_file(Path(data[key]), f"data.{key}={data[key]}")
    problems.check()
    if "delimiter" in data:
        where = f"data.path={data['path']}"
        layout = find_layout(Path(data["path"]), where, data["delimiter"], data["header"])
        check_keys(layout.names, data, where)


def check_labelled(path: Path, data: Mapping[str, Any], run_folder: Path) -> None:
    """Raises ConfigError for a text file without the columns that a run has learned, by its header alone."""
    facts = run_folder / "table.json"
    if not data.get("header") or not facts.is_file() or not path.is_file() or is_parquet(path):
        return
    where = f"input={path}"
    names = find_layout(path, where, data["delimiter"], header=True).names
    targets = column_names(read_facts(facts, ("target",))["target"])
    if lacking := [name for name in targets if name not in names]:
        raise ConfigError(f"{where}: the target column {lacking[0]} is missing{_other_columns(lacking[0], names)}")


def check_keys(names: Sequence[str], data: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for all that is wrong with the columns that the keys of `data` name; the file has `names`."""
    target, problems = column_names(data["target"]), Problems()
    with problems.gather():
        _check_target(target)
    seen = dict.fromkeys(target, "target")
    named = [("target", column) for column in target]
    named += [(key, str(column)) for key in LISTS for column in data[key]]
    for key, column in named:
        with problems.gather():
            _check_there(key, column, names, where)
            if seen.setdefault(column, key) != key:
                raise ConfigError(f"column {column} stands in data.{seen[column]} and in data.{key}")
    for column in map(str, data.get("keep", [])):
        with problems.gather():
            _check_there("keep", column, names, where)
            _check_kept(column, target)
    problems.check()


def _check_target(target: Sequence[str]) -> None:
    if not target:
        raise ConfigError("data.target=[]: name the column to learn, or several of them")
    if twice := sorted({name for name in target if target.count(name) > 1}):
        raise ConfigError(f"data.target=[{','.join(target)}]: {', '.join(twice)} stands there twice")


def _check_there(key: str, column: str, names: Sequence[str], where: str) -> None:
    if column not in names:
        raise ConfigError(f"data.{key}: {where} has no column {column}{_other_columns(column, names)}")


def _check_kept(column: str, target: Sequence[str]) -> None:
    """Raises ConfigError for a column that predictions have anyway, or that is called as one of theirs."""
    if column in target:
        raise ConfigError(f"data.keep=[{column}]: predictions have the target anyway; leave it out")
    theirs = PREDICTED if len(target) == 1 else [f"{kind}_{name}" for kind in PREDICTED for name in target]
    if column == "sample" or column in theirs or column.startswith("p_"):
        raise ConfigError(f"data.keep=[{column}]: predictions have a column of this name; call it something else")


def _other_columns(column: str, names: Sequence[str]) -> str:
    named = [name for name in names if name]
    nearest = did_you_mean(column, named)
    shown = ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")
    no_header = any(_is_number(name) for name in named)
    hint = "; if that line is data, set data.header=false, and columns are called c0, c1, …" if no_header else ""
    return nearest or f" (columns: {shown}{hint})"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
