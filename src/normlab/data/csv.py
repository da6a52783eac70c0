"""A table in a text file.  python train.py model=net data=csv data.path=bank.csv data.target=y"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from normlab.data.columns import Frame
from normlab.data.frames import FrameTable
from normlab.data.text import count_rows, find_layout
from normlab.errors import ConfigError

log = logging.getLogger(__name__)


class Csv(FrameTable):
    """Rows of text in UTF-8, with or without a byte order mark.

    delimiter: None finds a comma, semicolon, tab or bar. decimal: the character within numbers. header: without one the
    columns are called c0, c1, …. missing: texts that stand for a missing value, besides the empty one and those of
    pandas (NA, N/A, NaN, null, None and their kind).
    """

    def __init__(
        self,
        path: str,
        target: str,
        delimiter: str | None = None,
        decimal: Literal[".", ","] = ".",
        header: bool = True,
        missing: Sequence[str] = (),
        **table: Any,
    ):
        super().__init__(path, target, **table)
        self.delimiter, self.decimal, self.header, self.missing = delimiter, decimal, header, missing

    def read(self, path: Path, where: str) -> Frame:
        layout = find_layout(path, where, self.delimiter, self.header)
        expected = count_rows(path, where, layout) - self.header
        names = [name or f"\0{number}" for number, name in enumerate(layout.names)]
        try:
            frame = pd.read_csv(
                path,
                sep=layout.delimiter,
                names=names,
                header=0 if self.header else None,
                index_col=False,
                dtype=str,
                na_values=[str(text) for text in self.missing],
                skipinitialspace=True,
                encoding="utf-8-sig",
            )
        except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
            raise ConfigError(f"{where}: {error}") from error
        if len(frame) != expected:
            raise ConfigError(
                f"{where}: {len(frame):,} or {expected:,} rows, by how quotes are read: quote texts that contain quotes"
            )
        nameless = [name for name in names if name.startswith("\0")]
        if nameless:
            log.info(f"{where}: {len(nameless)} of {len(names)} columns left out (no name)")
        return frame.drop(columns=nameless)

    def read_new(self, path: Path, where: str) -> Frame:
        frame = self.read(path, where)
        if self.header:
            return frame
        inputs = [name for name in self.columns if name != self.target]
        for names in (self.columns, inputs):
            if len(names) == frame.shape[1]:
                return frame.set_axis(names, axis=1)
        raise ConfigError(
            f"{where}: {frame.shape[1]} columns; without a header, expected the {len(self.columns)} of the training "
            f"file, or {len(inputs)} without the target"
        )
