"""What the log says of a table."""

import logging
from collections.abc import Sequence

from normlab.data.tables.columns import Columns
from normlab.data.tables.target import Target, Taught
from normlab.data.tables.values import Column, Frame, quoted

log = logging.getLogger(__name__)


def tell_unused(frame: Frame, known: Sequence[str], where: str) -> None:
    """Says which columns the training file does not have."""
    others = [name for name in frame if name not in known]
    if others:
        log.info(f"{where}: columns left out: {', '.join(others)} (not in the training file)")


def tell_unknown(column: Column, known: Sequence[str], where: str) -> None:
    """Says which categories training has not seen."""
    unknown = column[~column.isin(known)]
    if len(unknown):
        listed = ", ".join(map(quoted, unknown.unique()[:5]))
        more = ", …" if unknown.nunique() > 5 else ""
        log.warning(
            f"{where}: {column.name} in {len(unknown):,} of {len(column):,} rows is new to the run: {listed}{more}"
        )


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
