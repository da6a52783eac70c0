"""Cells that a spreadsheet would run as formulas."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet may run
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")


def escaped(table: "DataFrame") -> "DataFrame":
    """The table with an apostrophe before each text that a spreadsheet would run, the names of columns included.

    Numbers stay as they are, also those that are kept as text, such as -1.5.
    """
    from pandas.api.types import is_object_dtype, is_string_dtype

    def safe(column: Any) -> Any:
        texts = is_object_dtype(column) or is_string_dtype(column)
        return column.map(_escaped) if texts else column

    changed: Any = table.apply(safe)
    return changed.set_axis([_escaped(name) for name in table.columns], axis=1)


def _escaped(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value
