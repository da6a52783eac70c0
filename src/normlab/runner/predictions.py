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


def frame(answers: Tensor, targets: Tensor | None, inputs: Inputs, classes: Sequence[str]) -> "DataFrame":
    """A row a sample: `sample`, what is kept, `target` if known, `prediction`, and for classes `p_<class>` of each.

    answers: probabilities (N, classes), or predicted targets (N, width), whose columns are numbered where width > 1.
    targets: class numbers (N,), or (N, width). inputs: what was predicted, whose names are as `printable` shows them,
    since pandas takes text alone.
    """
    from pandas import DataFrame  # takes half a second that other actions do not need

    count, names = len(answers), inputs.names
    samples = range(1, count + 1) if names is None else [printable(str(name)) for name in names[:count]]
    columns: dict[str, Any] = {"sample": samples} | {name: values[:count] for name, values in inputs.kept.items()}
    if classes:
        named = np.array([printable(str(name)) for name in classes], dtype=object)
        if targets is not None:
            columns["target"] = named[targets.numpy()]
        columns["prediction"] = named[answers.argmax(1).numpy()]
        columns |= {f"p_{name}": p for name, p in zip(named, answers.T.numpy(), strict=True)}
        return DataFrame(columns)
    for name, values in (("target", targets), ("prediction", answers)):
        if values is not None:
            values = values.reshape(len(answers), -1).T.numpy()
            keys = [name] if len(values) == 1 else [f"{name}_{number}" for number in range(len(values))]
            columns |= dict(zip(keys, values, strict=True))
    return DataFrame(columns)


def csv_table(values: Tensor, classes: Sequence[str]) -> str:
    """A table of numbers as csv, its rows and columns named where they are the classes, and numbered elsewhere."""
    from pandas import DataFrame

    grid = values.reshape(len(values), -1).numpy()
    named = [printable(str(name)) for name in classes]
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


def summary(table: "DataFrame", classes: Sequence[str]) -> str:
    """The shares of the predicted classes, the largest first, or the range of what was predicted."""
    if classes:
        shares = table["prediction"].value_counts(normalize=True)
        named = [f"{name} {share:.1%}" for name, share in shares.head(SHARES).items()]
        return ", ".join(named) + (f" and {len(shares) - SHARES} more" if len(shares) > SHARES else "")
    columns = [name for name in table if str(name).startswith("prediction")]
    return ", ".join(
        f"{name} {table[name].min():.4g} to {table[name].max():.4g}, mean {table[name].mean():.4g}" for name in columns
    )


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
