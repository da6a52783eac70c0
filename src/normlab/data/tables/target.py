"""What a table's target is: classes, numbers, or labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from normlab.data.tables.values import (
    CODE,
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
from normlab.errors import ConfigError, Problems

KNOWN = 10  # classes that a message shows
LARGEST = 1e15  # its square is still to be summed in float32


@dataclass(frozen=True)
class Taught:
    """What a column teaches. `classes` are sorted; empty for a number to regress. reason: why it is that."""

    name: str
    classes: list[str]
    reason: str
    decimal: str = "."

    def take(self, frame: Frame, where: str) -> Tensor:
        """(N,) int64 classes or float32. Raises ConfigError for missing, infinite and unknown values."""
        if self.name not in frame:
            raise ConfigError(f"{where}: the target column {self.name} is missing")
        column = frame[self.name]
        _check_whole(column, where)
        if not self.classes:
            values = finite_numbers(column, where, self.decimal, LARGEST, "choose another data.target")
            return torch.tensor(values.to_numpy(), dtype=torch.float32)
        codes = self._codes(column, where)
        if (codes < 0).any():
            row, value = first(texts(column, where), codes < 0)
            known = ", ".join(self.classes[:KNOWN]) + (", …" if len(self.classes) > KNOWN else "")
            raise ConfigError(
                f"{where}: class {value} of {self.name} in {row} is not in the training file, whose classes are {known}"
            )
        return torch.tensor(codes, dtype=torch.int64)

    def _codes(self, column: Column, where: str) -> np.ndarray:
        """The numbers of the classes, -1 for a value that is none.

        A number may be written in another way than in the training file, as 1.0 for 1, but for codes such as 01.
        """
        classes, written = pd.Index(self.classes, dtype="object"), texts(column, where)
        plain = texts(numbers(column, self.decimal), where).mask(written.str.fullmatch(CODE), written)
        codes = classes.get_indexer(written)
        return np.where(codes < 0, classes.get_indexer(plain), codes)


@dataclass(frozen=True)
class Target:
    """What a table teaches: a column of classes, or one or more of numbers, or several of two classes each."""

    task: Literal["classify", "regress", "multilabel"]
    columns: Sequence[Taught]

    def take(self, frame: Frame, where: str) -> Tensor:
        """(N,) int64 classes, (N, columns) float32 numbers or int64 labels.

        Raises ConfigError for all columns with missing, infinite and unknown values.
        """
        taken, problems = [], Problems()
        for column in self.columns:
            with problems.gather():
                taken.append(column.take(frame, where))
        problems.check()
        return taken[0] if self.task == "classify" else torch.stack(taken, dim=1)


def find_target(frame: Frame, where: str, names: Sequence[str], task: str | None, decimal: str) -> Target:
    """The target in these columns. Raises ConfigError for all that no network can learn, and where they do not go
    together."""
    columns, problems = [], Problems()
    for name in names:
        with problems.gather():
            columns.append(_find_column(frame, where, name, task, decimal))
    problems.check()
    if len(columns) == 1:
        return Target("classify" if columns[0].classes else "regress", columns)
    classes = {column.name: len(column.classes) for column in columns}
    if not any(classes.values()):
        return Target("regress", columns)
    if all(count == 2 for count in classes.values()):
        return Target("multilabel", columns)
    kinds = ", ".join(
        f"{name} has {count} classes" if count else f"{name} is a number" for name, count in classes.items()
    )
    raise ConfigError(
        f"{where}: data.target=[{','.join(names)}]: {kinds}; columns are learned together where all are numbers, or "
        "all have two classes: leave out the others, or set data.task=regress if all hold numbers"
    )


def _find_column(frame: Frame, where: str, name: str, task: str | None, decimal: str) -> Taught:
    """What a column teaches, by a rule where `task` is None.

    Text makes classes. So do two different values, and whole numbers of few different ones, ten rows each on average.
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
        return Taught(name, [], reason, decimal)
    if different > max(2, len(labels) / 2):
        raise ConfigError(
            f"{where}: the target column {name} has {different:,} different values in {len(labels):,} rows, which "
            "makes no classes: is it the right column? If they are numbers, data.task=regress"
        )
    values = numbers(labels)  # labels of numbers are written with a point
    order = values if values.notna().all() else labels
    classes = list(dict.fromkeys(labels[order.sort_values(kind="stable").index]))
    _check_spaces(classes, where, name)
    return Taught(name, classes, reason, decimal)


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
