"""Predictions of a trained network, for the test part or for new samples from a file or folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.data.common.batches import Batches
from normlab.data.common.targets import TargetColumn
from normlab.errors import ConfigError
from normlab.streams import printable

if TYPE_CHECKING:
    from pandas import DataFrame

SHARES = 5  # how many classes the summary names


@dataclass
class Inputs:
    """Batches to predict. names: what each sample is called; None: its place, counted from 1.

    kept: columns of the data that the predictions carry, with a value a sample.
    """

    loader: Any
    names: Sequence[str] | None = None
    has_targets: bool = False
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def read_inputs(data: Any, path: Path | None) -> Inputs:
    """New samples from `path`; without a path, the samples that `data` gives to predict, or else its test part.

    Raises ConfigError where there are none, or samples of another shape than the network was built for.
    """
    if path is None:
        return _own_part(data)
    if not hasattr(data, "read_input"):
        raise ConfigError(f"input={path}: {type(data).__name__} reads no files; leave out input=")
    x, names = data.read_input(path)
    if not len(names):
        raise ConfigError(f"input={path} holds no samples")
    transform = _with_shape(data.transform(), data.input_shape, path)
    loader = Batches(x, torch.arange(len(names)), data.batch_size, transform=transform)
    kept = data.kept("input", names) if isinstance(data, DataModule) else {}
    return Inputs(loader, names, kept=kept)


def frame(answers: Tensor, targets: Tensor | None, inputs: Inputs, columns: Sequence[TargetColumn]) -> "DataFrame":
    """A row a sample: `sample`, what is kept, `target` if known, `prediction`, and `p_<class>` for each class.

    Of several columns each has a `target_<column>` and a `prediction_<column>`, and one of two classes, the second of
    which is called `<class>` here, has `p_<column>=<class>`.
    answers: probabilities (N, classes) of a single column, those of the second class (N, columns), or numbers
    (N, columns). targets: class numbers (N,), or (N, columns). inputs: what was predicted, whose names are as
    `printable` shows them, since pandas takes text alone. columns: those of the target.
    """
    from pandas import DataFrame  # takes half a second that other actions do not need

    count, names = len(answers), inputs.names
    samples = range(1, count + 1) if names is None else [printable(str(name)) for name in names[:count]]
    table: dict[str, Any] = {"sample": samples} | {name: values[:count] for name, values in inputs.kept.items()}
    if targets is not None:
        table |= _named("target", targets, columns)
    table |= _named("prediction", _decided(answers, columns), columns)
    return DataFrame(table | _probabilities(answers, columns))


def _decided(answers: Tensor, columns: Sequence[TargetColumn]) -> Tensor:
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


def check_finite(answers: Tensor, names: Sequence[str] | None, cause: str) -> None:
    """Raises FloatingPointError with the first samples that a network answers with NaN or inf."""
    bad = torch.nonzero(~torch.isfinite(answers).all(1)).flatten().tolist()
    if not bad:
        return
    first = ", ".join(str(place + 1 if names is None else names[place]) for place in bad[:3])
    raise FloatingPointError(
        f"the network answers {len(bad)} of {len(answers)} samples with NaN or inf (sample {first}"
        f"{', …' if len(bad) > 3 else ''}): {cause}"
    )


def summary(table: "DataFrame", columns: Sequence[TargetColumn]) -> str:
    """For each column of the target the shares of the predicted classes, the largest first, or the predicted range."""
    return "; ".join(_said(table[column.key("prediction")], column) for column in columns)


def _said(predicted: Any, column: TargetColumn) -> str:
    words = _shares(predicted) if column.classes else _range(predicted)
    return f"{predicted.name} {words}" if column.name or not column.classes else words


def _shares(predicted: Any) -> str:
    shares = predicted.value_counts(normalize=True)
    named = [f"{name} {share:.1%}" for name, share in shares.head(SHARES).items()]
    return ", ".join(named) + (f" and {len(shares) - SHARES} more" if len(shares) > SHARES else "")


def _range(predicted: Any) -> str:
    return f"{predicted.min():.4g} to {predicted.max():.4g}, mean {predicted.mean():.4g}"


def _own_part(data: Any) -> Inputs:
    if is_overridden("predict_dataloader", data):
        return Inputs(data.predict_dataloader())
    if is_overridden("test_dataloader", data):
        names = data.sample_names.get("test") if isinstance(data, DataModule) else None
        kept = data.kept("test", names) if names is not None else {}
        return Inputs(data.test_dataloader(), names, has_targets=True, kept=kept)
    raise ConfigError("action=predict: this data has no test part; say what to predict with input=<file or folder>")


def _with_shape(
    transform: Callable[[Tensor], Tensor] | None, shape: Sequence[int], path: Path
) -> Callable[[Tensor], Tensor]:
    """The transform, followed by a check of the shape that it gives."""

    def look(x: Tensor) -> Tensor:
        x = x if transform is None else transform(x)
        if tuple(x.shape[1:]) != tuple(shape):
            raise ConfigError(
                f"input={path}: samples have the shape {tuple(x.shape[1:])}; the network takes {tuple(shape)}"
            )
        return x

    return look
