"""Predictions of a trained network as a table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from normlab.data.common.targets import TargetColumn
from normlab.logs.streams import printable

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(
    answers: Tensor,
    targets: Tensor | None,
    samples: Sequence[Any],
    kept: Mapping[str, Sequence[Any]],
    columns: Sequence[TargetColumn],
) -> "DataFrame":
    """A row a sample: `sample`, what is kept, `target` if known, `prediction`, and `p_<class>` for each class.

    Of several columns each has a `target_<column>` and a `prediction_<column>`, and one of two classes, the second of
    which is called `<class>` here, has `p_<column>=<class>`.
    answers: probabilities (N, classes) of a single column, those of the second class (N, columns), or numbers
    (N, columns). targets: class numbers (N,), or (N, columns). samples: what they are called, shown as `printable`
    does, since pandas takes text alone. columns: those of the target.
    """
    from pandas import DataFrame  # takes half a second that other actions do not need

    named = samples if isinstance(samples, range) else [printable(str(name)) for name in samples]
    table: dict[str, Any] = {"sample": named, **kept}
    if targets is not None:
        table |= _named("target", targets, columns)
    table |= _named("prediction", decided(answers, columns), columns)
    return DataFrame(table | _probabilities(answers, columns))


def decided(answers: Tensor, columns: Sequence[TargetColumn]) -> Tensor:
    """The numbers of the likeliest classes, (N,) or (N, columns); numbers stay as they are."""
    if not columns[0].classes:
        return answers
    return (answers > 0.5).long() if answers.shape[1] == len(columns) else answers.argmax(1)


def _named(kind: str, values: Tensor, columns: Sequence[TargetColumn]) -> dict[str, Any]:
    """`kind` as a column for each of the target's, with the names of classes, or with numbers."""
    by_column = values.reshape(len(values), -1).T.numpy()
    return {
        column.key(kind): _shown(column.classes)[row] if column.classes else row
        for column, row in zip(columns, by_column, strict=True)
    }


def _probabilities(answers: Tensor, columns: Sequence[TargetColumn]) -> dict[str, Any]:
    if not columns[0].classes:
        return {}
    if answers.shape[1] == len(columns):
        keys = [f"p_{column.name}={_shown(column.classes)[1]}" for column in columns]
    else:
        keys = [f"p_{name}" for name in _shown(columns[0].classes)]
    return dict(zip(keys, answers.T.numpy(), strict=True))


def _shown(classes: Sequence[str]) -> np.ndarray:
    return np.array([printable(str(name)) for name in classes], dtype=object)


def csv_table(values: Tensor, names: Sequence[str]) -> str:
    """A table of numbers as csv; rows and columns have the names of the classes where they are as many, or numbers."""
    from pandas import DataFrame

    grid = values.reshape(len(values), -1).numpy()
    named = [printable(str(name)) for name in names]
    rows, columns = (named if len(named) == size else [*map(str, range(size))] for size in grid.shape)
    return DataFrame(grid, index=rows, columns=columns).to_csv(index_label="")  # pyright: ignore[reportArgumentType]
