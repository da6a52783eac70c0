"""What can be said of a table's keys by its header alone. Imports no pandas."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normlab.data.tables.text import check_file, find_layout
from normlab.errors import ConfigError, did_you_mean

FILES = {"train": "path", "val": "val_path", "test": "test_path"}  # a part, and the key of its file
PREDICTED = ("sample", "target", "prediction")  # columns of predictions.csv, which has p_<class> too
LISTS = ("numeric", "categorical", "drop")


def check_table(data: Mapping[str, Any]) -> None:
    """Raises ConfigError where the keys of `data=csv` or `data=parquet` name a file or column that is not there."""
    for key, what in (("path", "the file to read"), ("target", "the column to learn")):
        if data[key] == "???":
            raise ConfigError(f"data.{key}= is needed: {what}")
    for key in FILES.values():
        if data[key] is not None:
            check_file(Path(data[key]), f"data.{key}={data[key]}")
    if "delimiter" in data:
        where = f"data.path={data['path']}"
        layout = find_layout(Path(data["path"]), where, data["delimiter"], data["header"])
        check_columns(layout.names, data["target"], {key: data[key] for key in LISTS}, where)
        check_kept(layout.names, data["target"], data.get("keep", []), where)


def check_columns(names: Sequence[str], target: str, lists: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises ConfigError where `data.target` or one of the `LISTS` names a column that is not in `names`, or two of
    them the same one."""
    seen = {str(target): "target"}
    for key, column in [("target", target), *((name, column) for name in LISTS for column in lists[name])]:
        if str(column) not in names:
            raise ConfigError(f"data.{key}: {where} has no column {column}{_other_columns(str(column), names)}")
        if seen.setdefault(str(column), key) != key:
            raise ConfigError(f"column {column} stands in data.{seen[str(column)]} and in data.{key}")


def check_kept(names: Sequence[str], target: str, keep: Sequence[str], where: str) -> None:
    """Raises ConfigError where `data.keep` names a column that is not there, or one that predictions have anyway."""
    for column in map(str, keep):
        if column not in names:
            raise ConfigError(f"data.keep: {where} has no column {column}{_other_columns(column, names)}")
        if column == str(target):
            raise ConfigError(f"data.keep=[{column}]: predictions have the target anyway; leave it out")
        if column in PREDICTED or column.startswith("p_"):
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
