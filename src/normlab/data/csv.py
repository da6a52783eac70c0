"""A table in a text file.  python train.py model=net data=csv data.path=bank.csv data.target=y"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from normlab.data.tables.frames import FrameTable
from normlab.data.tables.text import Layout, count_rows, even_rows, find_layout
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
        layout = find_layout(path, where, self.delimiter, self.header)
        known = len(problems.messages)
        rows = count_rows(path, where, layout, problems)
        names = [name or f"\0{number}" for number, name in enumerate(self._names(layout, where))]
        missing = ["", *map(str, self.missing)]
        gaps = {name: missing if name in self.targets else [*MISSING, *missing] for name in names}
        if len(problems.messages) > known:
            frame = self._even(even_rows(path, where, layout), names, gaps)
        else:
            frame = self._whole(path, where, layout, names, gaps)
            if len(frame) != rows - self.header:
                raise ConfigError(
                    f"{where}: {len(frame):,} or {rows - self.header:,} rows, by how quotes are read: quote texts that "
                    "contain quotes"
                )
        nameless = [name for name in names if name.startswith("\0")]
        if nameless:
            log.info(f"{where}: {len(nameless)} of {len(names)} columns left out (no name)")
        return frame.drop(columns=nameless)

    def _whole(self, path: Path, where: str, layout: Layout, names: Sequence[str], gaps: Gaps) -> Frame:
        try:
            return pd.read_csv(
                path,
                sep=layout.delimiter,
                names=names,
                header=0 if self.header else None,
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_values=gaps,
                skipinitialspace=True,
                encoding="utf-8-sig",
            )
        except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
            raise ConfigError(f"{where}: {error}") from error

    def _even(self, rows: Mapping[int, list[str]], names: Sequence[str], gaps: Gaps) -> Frame:
        """The rows with as many columns as the first, numbered as in the file."""
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
