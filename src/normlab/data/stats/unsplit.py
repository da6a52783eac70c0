"""What a table holds that cannot be split and trained on yet: its files, as far as they can be read."""

from typing import Any

import numpy as np
import torch
from pandas.api.types import is_string_dtype

from normlab.data.stats.measure import Part, row_hashes
from normlab.data.tables.frames import FrameTable
from normlab.data.tables.values import MOSTLY, Column, Frame, is_number_type, numbers
from normlab.errors import Problems


def unsplit_parts(data: FrameTable) -> dict[str, Part]:
    """The rows of each file that can be read, all columns alike; empty where not even the training file can be."""
    frames = data.read_files(Problems())  # the caller knows the problems
    return {name: _part(frame, data.decimal) for name, (frame, _) in frames.items()} if "train" in frames else {}


def _part(frame: Frame, decimal: str) -> Part:
    columns: Any = {name: _values(frame[name], decimal) for name in frame}
    readable = frame.assign(**columns)
    rows = [f"row {row + 1}" for row in frame.index]
    return Part(torch.zeros(len(frame)), row_hashes(readable.astype("str")), rows, frame=readable)


def _values(column: Column, decimal: str) -> Column:
    """Numbers where most values are, NaN elsewhere; texts as they are, None for a missing one."""
    there = column.notna()
    if is_string_dtype(column) or is_number_type(column):
        values = numbers(column, decimal)
        values = values.where(np.isfinite(values))
        if is_number_type(column) or values[there].notna().mean() >= MOSTLY:
            return values
    return column.astype("str").astype("object").where(there, None)
