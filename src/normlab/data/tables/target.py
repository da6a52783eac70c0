"""What a table's target is: classes, or a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from normlab.data.tables.values import (
    FEW,
    MOSTLY,
    Column,
    Frame,
    finite_numbers,
    first,
    has_codes,
    numbers,
    quoted,
    texts,
)
from normlab.errors import ConfigError

LARGEST = 1e15  # its square is still to be summed in float32


@dataclass(frozen=True)
class Target:
    """What a column teaches. `classes` are sorted; empty for a number to regress."""

    name: str
    task: Literal["classify", "regress"]
    classes: list[str]
    decimal: str = "."

    def take(self, frame: Frame, where: str) -> Tensor:
        """(N,) int64 classes or (N, 1) float32. Raises ConfigError for missing, infinite and unknown values."""
        if self.name not in frame:
            raise ConfigError(f"{where}: the target column {self.name} is missing")
        column = frame[self.name]
        _check_whole(column, where)
        if self.task == "regress":
            values = finite_numbers(column, where, self.decimal, LARGEST, "choose another data.target")
            return torch.tensor(values.to_numpy(), dtype=torch.float32)[:, None]
        labels = _labels(column, where, self.decimal)
        codes = pd.Index(self.classes, dtype="object").get_indexer(labels)
        if (codes < 0).any():
            row, value = first(labels, codes < 0)
            raise ConfigError(f"{where}: class {value} of {self.name} in {row} is not in the training file")
        return torch.tensor(codes, dtype=torch.int64)


def find_target(frame: Frame, where: str, name: str, task: str | None, decimal: str) -> tuple[Target, str]:
    """The target, and the reason for its task where `task` is None.

    Text makes classes, and so do two values, and whole numbers of few different values with ten rows each on average.
    Raises ConfigError for a column that no network can learn.
    """
    column = frame[name]
    _check_whole(column, where)
    labels = _labels(column, where, decimal)
    different = labels.nunique()
    if different < 2:
        raise ConfigError(f"{where}: the target column {name} has a single value, {quoted(labels.iloc[0])}")
    reason = f"data.task={task}"
    if task is None:
        task, reason = _task(column, where, different, decimal)
    if task == "regress":
        return Target(name, "regress", [], decimal), reason
    if different > max(2, len(labels) / 2):
        raise ConfigError(
            f"{where}: the target column {name} has {different:,} different values in {len(labels):,} rows, which "
            "makes no classes: is it the right column? If they are numbers, data.task=regress"
        )
    values = numbers(labels)  # labels of numbers are written with a point
    order = values if values.notna().all() else labels
    classes = list(dict.fromkeys(labels[order.sort_values(kind="stable").index]))
    _check_spaces(classes, where, name)
    return Target(name, "classify", classes, decimal), reason


def _check_spaces(classes: Sequence[str], where: str, name: str) -> None:
    stripped: dict[str, str] = {}
    for label in classes:
        other = stripped.setdefault(label.strip(), label)
        if other != label:
            raise ConfigError(
                f"{where}: the classes {quoted(other)} and {quoted(label)} of {name} differ by spaces only: mend them"
            )


def _task(column: Column, where: str, different: int, decimal: str) -> tuple[str, str]:
    values = numbers(column, decimal)
    if values.notna().mean() < MOSTLY:
        return "classify", "text"
    if has_codes(texts(column, where)):
        return "classify", "codes with leading zeros; otherwise set data.task=regress"
    if values.isna().any():
        row, value = first(column, values.isna())
        raise ConfigError(
            f"{where}: the target column {column.name} holds numbers, but {value} in {row}: mend it, leave the row "
            "out, or set data.task=classify"
        )
    if different == 2:
        return "classify", "two values; otherwise set data.task=regress"
    if (values % 1 != 0).any():
        return "regress", "numbers with fractions"
    few = different <= min(FEW, len(values) / 10)
    task, other = ("classify", "regress") if few else ("regress", "classify")
    return task, f"whole numbers, {different:,} different ones; otherwise set data.task={other}"


def _check_whole(column: Column, where: str) -> None:
    gaps = texts(column, where) == ""
    if gaps.any():
        raise ConfigError(
            f"{where}: the target column {column.name} is empty in {gaps.sum():,} of {len(column):,} rows, first in "
            f"{first(column, gaps)[0]}: leave these rows out"
        )


def _labels(column: Column, where: str, decimal: str) -> Column:
    """The names of classes; numbers are written in one way, however they stand in the file, but for codes."""
    values, written = numbers(column, decimal), texts(column, where)
    return written if values.isna().any() or has_codes(written) else texts(values, where)
