"""What a table's columns are: numbers, categories, or nothing to learn from; and what its target is."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype
from torch import Tensor

from normlab.errors import ConfigError, Problems

log = logging.getLogger(__name__)

Frame = Any  # pandas.DataFrame and pandas.Series, by whose own annotations a frame's column may be anything
Column = Any

MOSTLY = 0.9  # where this share of a column is numbers, or dates, the column is, and its other values are mistakes
FEW = 20  # up to this many different values, whole numbers are classes, and any text is categories
LARGEST_FEATURE = float(np.finfo(np.float32).max)
LARGEST_TARGET = 1e15  # its square is still to be summed in float32
DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?"
OTHER_NUMBER = r"[-+]?\d+([., '\u202f\xa0]\d+)+"  # such as 1.234,5 and 1,234.5
CODE = r"0\d+"  # a whole number would not begin with 0
ROWS = 5  # how many further rows of a mistake are named
IDS = 20  # fewer rows may have numbers of their own by chance
PLAIN = ("string", "integer", "floating", "mixed-integer", "mixed-integer-float", "decimal", "boolean", "empty")


@dataclass(frozen=True)
class Columns:
    """The columns to learn from. `decimal` is the character of numbers in text."""

    numeric: list[str]
    categorical: list[str]
    decimal: str = "."

    def take(self, frame: Frame, where: str, remedy: str | None = None) -> Frame:
        """These columns alone: numbers as float64 with NaN, categories as text with "", where a value is missing.

        Raises ConfigError for columns that are not there, and for all columns with cells that are no finite numbers;
        `remedy` says what to do about these beside mending them.
        """
        lacking = [name for name in [*self.numeric, *self.categorical] if name not in frame]
        if lacking:
            raise ConfigError(f"{where}: these columns are missing: {', '.join(lacking)}")
        found, problems = {}, Problems()
        for name in self.numeric:
            with problems.gather():
                found[name] = finite_numbers(frame[name], where, self.decimal, remedy=remedy)
        for name in self.categorical:
            with problems.gather():
                found[name] = texts(frame[name], where)
        problems.check()
        return pd.DataFrame(found, index=frame.index)


def find_columns(
    frame: Frame, where: str, target: str, lists: Mapping[str, Sequence[str]], decimal: str, problems: Problems
) -> Columns:
    """Tells the columns apart that `lists` (numeric, categorical, drop) do not name, and says what is left out.

    Numbers alone make a numeric column, anything else a categorical one, and so do codes with leading zeros, such as
    postal codes. Left out are columns without values, and texts of which most rows have their own. `problems` gathers
    the columns where that is doubtful: dates, and numbers with a few texts among them. Raises ConfigError where no
    column is left.
    """
    kinds = {str(name): key for key, names in lists.items() for name in names} | {target: "drop"}
    left_out: dict[str, list[str]] = {}
    for name in frame.columns:
        if name not in kinds:
            kinds[name] = "problem"
            with problems.gather():
                kinds[name] = _kind(frame[name], where, decimal)
            if kinds[name] not in ("numeric", "categorical", "problem"):
                left_out.setdefault(kinds[name], []).append(name)
    for reason, names in left_out.items():
        log.info(f"left out: {', '.join(names)} ({reason})")
    listed = [*lists["numeric"], *lists["categorical"]]
    _tell_codes(frame, [name for name in frame.columns if kinds[name] == "categorical" and name not in listed])
    _tell_counters(frame, [name for name in frame.columns if kinds[name] == "numeric" and name not in listed], decimal)
    numeric, categorical = ([n for n in frame.columns if kinds[n] == kind] for kind in ("numeric", "categorical"))
    if not numeric and not categorical and not problems.messages:
        raise ConfigError(f"{where}: no column is left to learn from")
    return Columns(numeric, categorical, decimal)


def _kind(column: Column, where: str, decimal: str) -> str:
    """`numeric`, `categorical`, or why the column is left out."""
    values = texts(column, where)
    there = values[values != ""]
    if there.empty:
        return "no values"
    if is_number_type(column):
        return "numeric"
    if has_codes(there):
        return "text of which most rows have their own" if _has_many(there) else "categorical"
    name, remedy = column.name, f"data.categorical=[{column.name}] or data.drop=[{column.name}]"
    is_number = numbers(column, decimal)[there.index].notna()
    if is_number.all():
        return "numeric"
    if is_number.mean() >= MOSTLY:
        row, value = first(there, ~is_number)
        raise ConfigError(
            f"{where}: column {name} holds numbers, but {value} in {row}: mend it, or set data.missing=[{value}], "
            f"{remedy}"
        )
    different = there.unique()
    dates = [value for value in different if re.fullmatch(DATE, value)]
    if len(dates) >= MOSTLY * len(different):
        raise ConfigError(
            f"{where}: column {name} holds dates, such as {quoted(dates[0])}: put numbers in their place, such as a "
            f"month or an age, or set {remedy}"
        )
    others = [value for value in different if re.fullmatch(OTHER_NUMBER, value)]
    if len(others) >= MOSTLY * len(different):
        raise ConfigError(
            f"{where}: column {name} holds numbers that are written in another way, such as {quoted(others[0])}: write "
            f"them with one point and nothing else, set data.decimal if it is a comma, or set {remedy}"
        )
    return "text of which most rows have their own" if _has_many(there) else "categorical"


def has_codes(column: Column) -> bool:
    """Whether texts are whole numbers of which some begin with a zero, as postal codes do: these are names."""
    if is_number_type(column):
        return False
    different = [value for value in column.unique() if value != ""]
    whole = all(re.fullmatch(r"\d+", value) for value in different)
    return whole and any(re.fullmatch(CODE, value) for value in different)


def counts_rows(column: Column) -> bool:
    """Whether numbers could be those of the rows, of which a part may have been cut out."""
    if len(column) < IDS or not column.is_unique or column.isna().any():
        return False
    return bool((column % 1 == 0).all()) and column.max() - column.min() < 4 * len(column)


def _has_many(there: Column) -> bool:
    return there.nunique() > max(FEW, len(there) / 2)


def _tell_codes(frame: Frame, names: Sequence[str]) -> None:
    found = [name for name in names if not is_number_type(frame[name]) and has_codes(frame[name].dropna().astype(str))]
    if found:
        log.info(f"codes with leading zeros, no numbers: {', '.join(found)}; otherwise data.numeric=[{found[0]}]")


def _tell_counters(frame: Frame, names: Sequence[str], decimal: str) -> None:
    for name in names:
        if counts_rows(numbers(frame[name], decimal)):
            log.warning(
                f"{name} has a whole number of its own in each row, as a row counter has, and is learned from: "
                f"data.drop=[{name}] leaves it out, data.numeric=[{name}] keeps it without this warning"
            )


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
            values = finite_numbers(column, where, self.decimal, LARGEST_TARGET, "choose another data.target")
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


def numbers(column: Column, decimal: str = ".") -> Column:
    """The values as float64; NaN where one is missing or is no number."""
    if is_number_type(column):
        return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan), column.index, name=column.name)
    codes, different = pd.factorize(column)  # each text is looked at once
    # point and comma change places, so that one that separates thousands makes no other number of a text
    point = str.maketrans(f".{decimal}", f"{decimal}.")
    text = pd.Series([str(value).translate(point) for value in different], dtype="object")
    found: Any = pd.to_numeric(text, errors="coerce")
    return pd.Series(
        np.append(found.to_numpy("float64"), np.nan)[codes], column.index, name=column.name
    )  # the code of a gap is -1


def finite_numbers(
    column: Column, where: str, decimal: str, largest: float = LARGEST_FEATURE, remedy: str | None = None
) -> Column:
    """The values as float64, NaN where one is missing. Raises ConfigError for text, infinity and beyond `largest`."""
    there = texts(column, where) != ""
    values = numbers(column, decimal)
    wrong = values.isna() & there
    if wrong.any():
        row, value = first(column, wrong)
        raise ConfigError(
            f"{where}: column {column.name} has to hold numbers, but {value} stands in {row}: mend it, or "
            + (remedy or f"leave the column out with data.drop=[{column.name}]")
        )
    large = values.abs() > largest
    if large.any():
        row, value = first(column, large)
        raise ConfigError(
            f"{where}: column {column.name} has {value} in {row}; expected numbers within ±{largest:.1e}: mend it, or "
            + (remedy or f"leave the column out with data.drop=[{column.name}]")
        )
    return values


def texts(column: Column, where: str) -> Column:
    """The values as text, "" where one is missing. Raises ConfigError for what is neither text nor number."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("object")
    kind = "floating" if is_number_type(column) else infer_dtype(column)
    if kind not in PLAIN:
        raise ConfigError(
            f"{where}: column {column.name} holds values of type {kind}: put numbers or texts in their place, or set "
            f"data.drop=[{column.name}]"
        )
    codes, different = pd.factorize(column)
    found = [_number_text(value) if kind == "floating" else str(value) for value in different]
    return pd.Series(np.array([*found, ""], dtype="object")[codes], column.index, name=column.name)


def is_number_type(column: Column) -> bool:
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def first(column: Column, wrong: Any) -> tuple[str, str]:
    """The row of the first value that is wrong, with the rows of others, and that value; rows count from 1."""
    place, *others = column.index[np.asarray(wrong)]
    more = ", ".join(f"{other + 1:,}" for other in others[:ROWS]) + (", …" if len(others) > ROWS else "")
    return f"row {place + 1:,}" + (f" and {len(others):,} more ({more})" if others else ""), quoted(column[place])


def quoted(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _number_text(value: Any) -> str:
    """A whole number is written without a point, so that a column with and without gaps gives the same categories."""
    return str(int(value)) if float(value).is_integer() else str(value)
