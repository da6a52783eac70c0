"""What the log says of a table."""

import logging
from collections import Counter
from collections.abc import Sequence

from normlab.data.tables.columns import Columns
from normlab.data.tables.target import Target, Taught
from normlab.data.tables.values import Column, Frame, quoted

log = logging.getLogger(__name__)

SHOWN = 5  # categories of a column that a message shows


def tell_unused(frame: Frame, known: Sequence[str], where: str) -> None:
    """Says which columns the training file does not have."""
    others = [name for name in frame if name not in known]
    if others:
        log.info(f"{where}: columns left out: {', '.join(others)} (not in the training file)")


class Unknown:
    """Categories that training has not seen, gathered over the portions of a file."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()  # of each column
        self.unknown: Counter[str] = Counter()
        self.first: dict[str, dict[str, None]] = {}  # a few of the categories, in the order of the rows

    def add(self, column: Column, known: Sequence[str]) -> None:
        others = column[~column.isin(known)]
        self.rows[column.name] += len(column)
        self.unknown[column.name] += len(others)
        first = self.first.setdefault(column.name, {})
        for value in others.unique()[: SHOWN + 1]:
            if len(first) <= SHOWN:
                first[value] = None

    def tell(self, where: str) -> None:
        for name, first in self.first.items():
            if first:
                listed = ", ".join(map(quoted, [*first][:SHOWN])) + (", …" if len(first) > SHOWN else "")
                counted = f"{self.unknown[name]:,} of {self.rows[name]:,} rows"
                log.warning(f"{where}: {name} in {counted} is new to the run: {listed}")


def describe(frame: Frame, where: str, columns: Columns, target: Target) -> str:
    """A training file in a line: its rows, what is learned from, and what is learned."""
    kinds = f"{len(columns.numeric)} numeric, {len(columns.categorical)} categorical columns"
    taught = "; ".join(_described(frame, column) for column in target.columns)
    return f"{where}: {len(frame):,} rows, {kinds}; {'classify' if target.columns[0].classes else 'regress'} {taught}"


def _described(frame: Frame, column: Taught) -> str:
    """A column of the target, why it is learned so, and how often it has which class."""
    counts = frame[column.name].value_counts() if column.classes else {}
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:10])
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    return f"{column.name} ({column.reason})" + (f": {shown}{more}" if shown else "")
