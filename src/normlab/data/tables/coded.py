"""Rows of a table as numbers alone, and the arithmetic that prepares them: what an exported file has inside."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from normlab.data.tables.preprocessing import Preprocessing
from normlab.data.tables.values import Frame

UNKNOWN = -1.0  # a category that the training part lacks


def coded(preprocessing: Preprocessing, frame: Frame) -> Tensor:
    """(N, numbers + categories) float64: numbers, NaN where missing; of a category its place in the list."""
    columns = [frame[number.name].to_numpy(dtype="float64") for number in preprocessing.numbers]
    for column in preprocessing.categories:
        columns.append(pd.Index(column.values, dtype="object").get_indexer(frame[column.name]).astype("float64"))
    return torch.from_numpy(np.stack(columns, axis=1))


def coded_facts(preprocessing: Preprocessing) -> dict[str, Any]:
    """What stands in each column of `coded`, in plain values."""
    numbers = [{"name": number.name, "missing": "NaN"} for number in preprocessing.numbers]
    categories = [{"name": c.name, "values": c.values, "unknown": UNKNOWN} for c in preprocessing.categories]
    return {
        "samples": "a number for each column; of a category its place in `values`, from 0",
        "columns": [*numbers, *categories],
    }


class Decoder(nn.Module):
    """`Preprocessing.apply` for rows as `coded` gives them: (N, numbers + categories) float64 -> (N, width) float32."""

    constants: Tensor

    def __init__(self, preprocessing: Preprocessing):
        super().__init__()
        numbers = preprocessing.numbers
        values = [[n.median for n in numbers], [n.mean for n in numbers], [n.std for n in numbers]]
        self.register_buffer("constants", torch.tensor(values, dtype=torch.float64))  # 16 digits, as pandas has
        self.indicated = [place for place, number in enumerate(numbers) if number.indicated]
        self.sizes = [len(column.values) for column in preprocessing.categories]
        self.numbers, self.embed = len(numbers), preprocessing.embed

    def forward(self, x: Tensor) -> Tensor:
        blocks = []
        if self.numbers:
            median, mean, std = self.constants
            numbers = x[:, : self.numbers]
            gaps = torch.isnan(numbers)
            blocks.append((torch.where(gaps, median, numbers) - mean) / std)
            blocks += [gaps[:, place : place + 1].double() for place in self.indicated]
        for place, size in enumerate(self.sizes, self.numbers):
            code = x[:, place : place + 1]
            choices = torch.arange(size, dtype=x.dtype, device=x.device)
            blocks.append(code - UNKNOWN if self.embed else (code == choices).double())
        return torch.cat([block.float() for block in blocks], dim=1)
