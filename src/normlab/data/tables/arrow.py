"""Tables in parquet files, whole or a portion at a time."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from normlab.data.tables.text import check_file
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError


def read_parquet(path: Path, where: str) -> Frame:
    """The whole table, rows numbered from 0. Raises ConfigError, which begins with `where`."""
    check_file(path, where)
    try:
        frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's own errors are among these
        raise ConfigError(f"{where}: {error}") from error
    return _checked(frame, where).reset_index(drop=True)


def parquet_portions(path: Path, where: str, rows: int) -> Iterator[Frame]:
    """The frame of `read_parquet`, cut into portions of at most `rows` rows that keep their numbers.

    Raises ConfigError, which begins with `where`.
    """
    check_file(path, where)
    types, start = _types(), 0
    try:
        from pyarrow import Table, parquet  # an extra: only whoever has such a file needs it

        for batch in parquet.ParquetFile(path).iter_batches(rows):
            frame = Table.from_batches([batch]).to_pandas(types_mapper=types.get)
            frame.index = pd.RangeIndex(start, start + len(frame))
            start += len(frame)
            yield _checked(frame, where)
    except (ImportError, ValueError, OSError, NotImplementedError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {error}") from error
    if not start:
        raise ConfigError(f"{where}: the table has no rows")


def _checked(frame: Frame, where: str) -> Frame:
    frame.columns = frame.columns.map(str)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ConfigError(f"{where}: columns with the same name: {', '.join(twice[:5])}")
    if frame.empty:
        raise ConfigError(f"{where}: the table has no rows")
    return frame


@cache
def _types() -> dict[Any, Any]:
    """The types that pandas takes with dtype_backend="numpy_nullable", by those of pyarrow."""
    import pyarrow as pa

    whole = {getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")() for name in ("Int8", "Int16", "Int32", "Int64")}
    signless = {getattr(pa, f"uint{bits}")(): getattr(pd, f"UInt{bits}Dtype")() for bits in (8, 16, 32, 64)}
    text = dict.fromkeys((pa.string(), pa.large_string()), pd.StringDtype())
    floats = {pa.float32(): pd.Float32Dtype(), pa.float64(): pd.Float64Dtype()}
    return {**whole, **signless, **floats, **text, pa.bool_(): pd.BooleanDtype()}
