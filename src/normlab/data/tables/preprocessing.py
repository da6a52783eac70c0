"""Columns of a table turned into numbers; fitted once on the training part, and kept as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from normlab.data.tables.values import Column, Frame
from normlab.errors import ConfigError

MOST_ONEHOT = 1000  # categories of a column


@dataclass(frozen=True)
class Number:
    """x ↦ (x − mean) / std, where a missing x is the median; `indicated` adds a feature that is 1 there."""

    name: str
    median: float
    mean: float
    std: float
    indicated: bool


@dataclass(frozen=True)
class Category:
    """The values that the training part has, sorted; "" is a missing one."""

    name: str
    values: list[str]


@dataclass(frozen=True)
class Preprocessing:
    """Turns a frame of numbers (float64) and categories (text) into features (N, width) float32.

    The numbers come first, standardised, then the indicators of missing ones, then each categorical column. One-hot, it
    has a feature for each of its values, and zeros for a value that the training part lacks. With `embed` it has one
    feature, for `Embeddings` to look up: it counts the values from 1, and is 0 for one that the training part lacks.
    """

    numbers: list[Number]
    categories: list[Category]
    embed: bool

    @property
    def width(self) -> int:
        return len(self.feature_names)

    @property
    def feature_names(self) -> list[str]:
        indicators = [f"{number.name} missing" for number in self.numbers if number.indicated]
        names = [number.name for number in self.numbers] + indicators
        for column in self.categories:
            names += [column.name] if self.embed else [f"{column.name}={value}" for value in column.values]
        return names

    @property
    def plain(self) -> int:
        """How many features stand before the categorical columns."""
        return len(self.numbers) + sum(number.indicated for number in self.numbers)

    def apply(self, frame: Frame, where: str) -> Tensor:
        """Raises ConfigError for a number too far off the training part's for float32."""
        numbers, indicators, categories = [], [], []
        for number in self.numbers:
            values = frame[number.name].to_numpy()
            gaps = np.isnan(values)
            with np.errstate(over="ignore"):
                standard = ((np.where(gaps, number.median, values) - number.mean) / number.std).astype(np.float32)
            if not np.isfinite(standard).all():
                value = values[~np.isfinite(standard)][0]
                raise ConfigError(f"{where}: column {number.name} has {value}, far off all of the training part")
            numbers.append(standard[:, None])
            if number.indicated:
                indicators.append(gaps[:, None].astype(np.float32))
        for column in self.categories:
            codes = pd.Index(column.values, dtype="object").get_indexer(frame[column.name])[:, None]
            categories.append(codes + 1 if self.embed else codes == np.arange(len(column.values)))
        blocks = [block.astype(np.float32, copy=False) for block in (*numbers, *indicators, *categories)]
        return torch.from_numpy(np.concatenate(blocks, axis=1))

    def cells(self, features: np.ndarray) -> list[tuple[str, str]]:
        """The name and the cell of each column, from the features (width,) of a row: what `apply` was given.

        A missing cell is empty, and a category that the training part lacks is "?".
        """
        indicators = iter(features[len(self.numbers) : self.plain])
        row = []
        for number, value in zip(self.numbers, features, strict=False):
            missing = number.indicated and bool(next(indicators))
            row.append((number.name, "" if missing else f"{value * number.std + number.mean:.5g}"))
        start = self.plain
        for column in self.categories:
            width = 1 if self.embed else len(column.values)
            code = int(features[start]) - 1 if self.embed else int(features[start : start + width].argmax())
            known = code >= 0 if self.embed else bool(features[start : start + width].any())
            row.append((column.name, column.values[code] if known else "?"))
            start += width
        return row

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(facts: dict[str, Any]) -> "Preprocessing":
        numbers = [Number(**column) for column in facts["numbers"]]
        return Preprocessing(numbers, [Category(**column) for column in facts["categories"]], facts["embed"])


def fit(
    frame: Frame, numeric: Sequence[str], categorical: Sequence[str], embed: bool
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing that the training part's columns ask for, and the columns of a single value, which it lacks.

    Raises ConfigError for a column of more categories than one-hot makes sense for.
    """
    constant = [name for name in (*numeric, *categorical) if frame[name].nunique(dropna=False) < 2]
    numbers = [_number(frame[name]) for name in numeric if name not in constant]
    categories = [Category(name, sorted(frame[name].unique().tolist())) for name in categorical if name not in constant]
    for column in categories:
        if not embed and len(column.values) > MOST_ONEHOT:
            raise ConfigError(
                f"data.categories=onehot: column {column.name} has {len(column.values):,} categories; set "
                f"data.categories=embed, or data.drop=[{column.name}]"
            )
    return Preprocessing(numbers, categories, embed), constant


def _number(column: Column) -> Number:
    median = float(column.median())
    filled = column.fillna(median).to_numpy()
    std = float(filled.std()) or 1.0  # it is 0 where values differ by less than a number can tell
    return Number(str(column.name), median, float(filled.mean()), std, bool(column.isna().any()))
