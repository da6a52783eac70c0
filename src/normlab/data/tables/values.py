"""What the cells of a table are: numbers, texts, codes, or missing."""

import re
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

from normlab.errors import ConfigError

Frame = Any  # pandas.DataFrame and pandas.Series, by whose own annotations a frame's column may be anything
Column = Any

MOSTLY = 0.9  # where this share of a column is numbers, or dates, the column is, and its other values are mistakes
FEW = 20  # up to this many different values, whole numbers are classes, and any text is categories
LARGEST_FEATURE = float(np.finfo(np.float32).max)
CODE = r"0\d+"  # a whole number would not begin with 0
ROWS = 5  # how many further rows of a mistake are named
IDS = 20  # in fewer rows than these, numbers may look like a count of the rows by chance
PLAIN = ("string", "integer", "floating", "mixed-integer", "mixed-integer-float", "decimal", "boolean", "empty")


def numbers(column: Column, decimal: str = ".") -> Column:
    """The values as float64; NaN where one is missing or is no number."""
    if is_number_type(column):
        return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan), column.index, name=column.name)
    codes, different = pd.factorize(column)  # each text is looked at once
    # Point and comma change places, and a text in which a point separates thousands is then no number.
    point = str.maketrans(f".{decimal}", f"{decimal}.")
    text = pd.Series([str(value).translate(point) for value in different], dtype="object")
    parsed: Any = pd.to_numeric(text, errors="coerce")
    with_gap = np.append(parsed.to_numpy("float64"), np.nan)  # the code of a gap is -1
    return pd.Series(with_gap[codes], column.index, name=column.name)


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
    written = [_number_text(value) if kind == "floating" else str(value) for value in different]
    return pd.Series(np.array([*written, ""], dtype="object")[codes], column.index, name=column.name)


def is_number_type(column: Column) -> bool:
    """Whether the column's type is one of numbers; truth values are none."""
    return is_numeric_dtype(column) and not is_bool_dtype(column)


def first(column: Column, wrong: Any) -> tuple[str, str]:
    """The row of the first value that is wrong, with the rows of others, and that value; rows count from 1."""
    place, *others = column.index[np.asarray(wrong)]
    more = ", ".join(f"{other + 1:,}" for other in others[:ROWS]) + (", …" if len(others) > ROWS else "")
    return f"row {place + 1:,}" + (f" and {len(others):,} more ({more})" if others else ""), quoted(column[place])


def quoted(value: object) -> str:
    """A value as messages show it, cut off where it is long."""
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _number_text(value: Any) -> str:
    """A whole number is written without a point, so that a column with and without gaps gives the same categories."""
    return str(int(value)) if float(value).is_integer() else str(value)


def has_codes(column: Column) -> bool:
    """Whether texts are whole numbers of which some begin with a zero, as postal codes do: these are names."""
    if is_number_type(column):
        return False
    different = [value for value in column.unique() if value != ""]
    whole = all(re.fullmatch(r"\d+", value) for value in different)
    return whole and any(re.fullmatch(CODE, value) for value in different)


def counts_rows(column: Column) -> bool:
    """Whether the numbers could count the rows, some of which may have been left out since."""
    if len(column) < IDS or not column.is_unique or column.isna().any():
        return False
    return bool((column % 1 == 0).all()) and column.max() - column.min() < 4 * len(column)
