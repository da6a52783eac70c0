"""A table in a text file.  python train.py model=net data=csv data.path=bank.csv data.target=y"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from normlab.data.tables.arrow import parquet_portions
from normlab.data.tables.frames import FrameTable
from normlab.data.tables.text import Layout, count_rows, even_rows, find_layout, is_parquet
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems

log = logging.getLogger(__name__)

Gaps = Mapping[str, Sequence[str]]  # the texts that stand for a missing value in each column

# What pandas takes for a missing value; given here since None or NA may well be a class of the target.
# fmt: off
MISSING = [
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
]
# fmt: on


class Csv(FrameTable):
    """Rows of text in UTF-8, with or without a byte order mark.

    delimiter: None finds a comma, semicolon, tab or bar. decimal: the character within numbers. header: without one the
    columns are called c0, c1, …. missing: texts that stand for a missing value, besides the empty one and, but for the
    target, those of pandas (NA, N/A, NaN, null, None and their kind).
    """

    def __init__(
        self,
        path: str,
        target: str | Sequence[str],
        delimiter: str | None = None,
        decimal: Literal[".", ","] = ".",
        header: bool = True,
        missing: Sequence[str] = (),
        **table: Any,
    ):
        super().__init__(path, target, **table)
        self.delimiter, self.decimal, self.header, self.missing = delimiter, decimal, header, missing

    def read(self, path: Path, where: str, problems: Problems) -> Frame:
        layout, names = self._layout(path, where)
        known = len(problems.messages)
        rows = count_rows(path, where, layout, problems)
        if len(problems.messages) > known:
            frame = self._even(even_rows(path, where, layout), names)
        else:
            with _refusing(where):
                frame = self._parsed(path, layout, names)
            self._check_count(len(frame), rows, where)
        return self._named(frame, where)

    def portions(self, path: Path, where: str, rows: int) -> Iterator[Frame]:
        """As `FrameTable.portions`; a parquet file is read too."""
        if is_parquet(path):
            yield from parquet_portions(path, where, rows)
            return
        layout, names = self._layout(path, where)
        problems = Problems()
        expected = count_rows(path, where, layout, problems)
        problems.check()
        count = 0
        with _refusing(where), self._parsed(path, layout, names, rows) as portions:
            for frame in portions:
                yield self._named(frame, where if not count else None)
                count += len(frame)
        self._check_count(count, expected, where)

    def given(self, frame: Frame) -> Frame:
        """Texts that stand for a missing value do so in a frame too."""
        gaps = self._gaps(list(frame.columns))
        return frame.apply(lambda column: column.mask(column.isin(gaps[column.name])))

    def _layout(self, path: Path, where: str) -> tuple[Layout, list[str]]:
        """How the file is written, and its columns; those without a name are called by a zero byte and a number."""
        layout = find_layout(path, where, self.delimiter, self.header)
        return layout, [name or f"\0{number}" for number, name in enumerate(self._names(layout, where))]

    def _gaps(self, names: Sequence[str]) -> Gaps:
        missing = ["", *map(str, self.missing)]
        return {name: missing if name in self.targets else [*MISSING, *missing] for name in names}

    def _parsed(self, path: Path, layout: Layout, names: Sequence[str], rows: int | None = None) -> Any:
        """The frame, or a reader of frames of so many rows."""
        return pd.read_csv(
            path,
            sep=layout.delimiter,
            names=names,
            header=0 if self.header else None,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            na_values=self._gaps(names),
            skipinitialspace=True,
            encoding="utf-8-sig",
            chunksize=rows,
        )

    def _check_count(self, parsed: int, rows: int, where: str) -> None:
        if parsed != rows - self.header:
            raise ConfigError(
                f"{where}: {parsed:,} or {rows - self.header:,} rows, by how quotes are read: quote texts that "
                "contain quotes"
            )

    @staticmethod
    def _named(frame: Frame, where: str | None) -> Frame:
        """The columns that have a name; the log says how many have none, where the file is told."""
        nameless = [name for name in frame if name.startswith("\0")]
        if nameless and where is not None:
            log.info(f"{where}: {len(nameless)} of {frame.shape[1]} columns left out (no name)")
        return frame.drop(columns=nameless)

    def _even(self, rows: Mapping[int, list[str]], names: Sequence[str]) -> Frame:
        """The rows with as many columns as the first, numbered as in the file."""
        gaps = self._gaps(names)
        rows = {place - self.header: row for place, row in rows.items() if place >= self.header}
        frame: Frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(names), dtype="object")
        return frame.apply(lambda column: column.mask(column.isin(gaps[column.name])))

    def _names(self, layout: Layout, where: str) -> Sequence[str]:
        """The names of a file's columns: without a header those of the training file, with or without the target."""
        if self.header or not self.columns:
            return layout.names
        inputs = [name for name in self.columns if name not in self.targets]
        for names in (self.columns, inputs):
            if len(names) == len(layout.names):
                return names
        raise ConfigError(
            f"{where}: {len(layout.names)} columns; without a header, expected the {len(self.columns)} of the training "
            f"file, or {len(inputs)} without the target"
        )


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Turns what pandas raises of a file into a refusal."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        raise ConfigError(f"{where}: {error}") from error
