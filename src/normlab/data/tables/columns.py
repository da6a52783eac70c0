"""What a table's columns are: numbers, categories, or nothing to learn from."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from normlab.data.tables.values import (
    FEW,
    MOSTLY,
    Column,
    Frame,
    counts_rows,
    finite_numbers,
    first,
    has_codes,
    is_number_type,
    numbers,
    quoted,
    texts,
)
from normlab.errors import ConfigError, Problems

log = logging.getLogger(__name__)

DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?"
OTHER_NUMBER = r"[-+]?\d+([., '\u202f\xa0]\d+)+"  # such as 1.234,5 and 1,234.5


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
        taken, problems = {}, Problems()
        for name in self.numeric:
            with problems.gather():
                taken[name] = finite_numbers(frame[name], where, self.decimal, remedy=remedy)
        for name in self.categorical:
            with problems.gather():
                taken[name] = texts(frame[name], where)
        problems.check()
        return pd.DataFrame(taken, index=frame.index)


def find_columns(
    frame: Frame,
    where: str,
    target: Sequence[str],
    lists: Mapping[str, Sequence[str]],
    decimal: str,
    problems: Problems,
) -> Columns:
    """Sorts the columns that `lists` (numeric, categorical, drop) do not name, and logs which are left out.

    A column of numbers alone is numeric. Any other is categorical, and so are codes with leading zeros, such as postal
    codes. Columns without values are left out, and so are texts of which most rows have their own. `problems` gathers
    the columns where that is doubtful: dates, and numbers with a few texts among them. Raises ConfigError where no
    column is left.
    """
    kinds = {str(name): key for key, names in lists.items() for name in names} | dict.fromkeys(target, "drop")
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


def _has_many(there: Column) -> bool:
    return there.nunique() > max(FEW, len(there) / 2)


def _tell_codes(frame: Frame, names: Sequence[str]) -> None:
    codes = [name for name in names if not is_number_type(frame[name]) and has_codes(frame[name].dropna().astype(str))]
    if codes:
        log.info(f"codes with leading zeros, no numbers: {', '.join(codes)}; otherwise data.numeric=[{codes[0]}]")


def _tell_counters(frame: Frame, names: Sequence[str], decimal: str) -> None:
    for name in names:
        if counts_rows(numbers(frame[name], decimal)):
            log.warning(
                f"{name} has a whole number of its own in each row, as a row counter has, and is learned from: "
                f"data.drop=[{name}] leaves it out, data.numeric=[{name}] keeps it without this warning"
            )
