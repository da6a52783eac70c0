"""New samples, a portion at a time, so that a file may be larger than memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from normlab.data.common.batches import Source
from normlab.errors import ConfigError

SHOWN = 10  # columns that a message names


@dataclass(frozen=True)
class Portion:
    """Some new samples, in the form that the splits of their data set have.

    names: what each is called. y: their targets where they are labelled. kept: columns that predictions carry, with a
    value a sample.
    """

    x: Tensor | Source
    names: Sequence[str]
    y: Tensor | None = None
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def as_rows(given: Any, names: Sequence[str]) -> np.ndarray:
    """An array (N, features) of the features `names`. Raises ConfigError for one of another shape."""
    rows = np.asarray(given)
    if rows.ndim != 2 or rows.shape[1] != len(names):
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        raise ConfigError(f"X has the shape {rows.shape}; expected (samples, {len(names)}), with the columns {shown}")
    return rows
