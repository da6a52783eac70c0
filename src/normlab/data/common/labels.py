"""Refuses targets that no task can be trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from normlab.data.common.targets import TargetColumn
from normlab.errors import ConfigError


def check_targets(y: Tensor, task: str, width: int, where: str) -> None:
    """Raises ConfigError for targets that a network with `width` outputs cannot be trained on for this task."""
    if task == "classify":
        check_labels(y, width, where)
    elif task == "multilabel":
        check_binary(y, width, where)
    else:
        check_finite(y, where)


def check_labels(y: Tensor, classes: int, where: str) -> None:
    """Raises ConfigError for targets that are neither classes (N,) from 0 to classes - 1 nor shares (N, classes)."""
    if y.is_floating_point() and y.ndim == 2 and y.shape[1] == classes:
        return
    if y.dtype != torch.int64:
        kind = str(y.dtype).removeprefix("torch.")
        raise ConfigError(f"{where}: labels are {kind}; classes are whole numbers, int64: y.long()")
    if y.ndim != 1:
        raise ConfigError(f"{where}: labels have the shape {tuple(y.shape)}; expected one class a sample, (N,)")
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise ConfigError(
            f"{where}: {len(wrong)} of {len(y)} labels, such as {int(wrong[0])}, are none of 0 to {classes - 1}, which "
            f"out_features={classes} stands for: count classes from 0, or let the data say how many there are"
        )


def check_binary(y: Tensor, columns: int, where: str) -> None:
    """Raises ConfigError for labels that are not (N, columns) int64 of 0 and 1."""
    if y.dtype != torch.int64 or tuple(y.shape[1:]) != (columns,):
        kind = str(y.dtype).removeprefix("torch.")
        raise ConfigError(f"{where}: labels are {kind} {tuple(y.shape)}; expected int64 of 0 and 1, (N, {columns})")
    wrong = y[(y < 0) | (y > 1)]
    if len(wrong):
        raise ConfigError(
            f"{where}: {len(wrong)} of {y.numel()} labels, such as {int(wrong[0])}, are neither 0 nor 1: several "
            "columns of whole numbers are labels, each of two classes; numbers to regress are y.float()"
        )


def check_both(y: Tensor, columns: Sequence[TargetColumn], where: str) -> None:
    """Raises ConfigError where a column of labels (N, columns) has one of its two classes alone."""
    counts = zip(columns, count_classes(y, len(columns)).tolist(), strict=True)
    lacking = [
        f"{of.name}={name}" for of, pair in counts for name, count in zip(of.classes, pair, strict=True) if not count
    ]
    if lacking:
        raise ConfigError(
            f"{where}: no sample has {', '.join(lacking)}: add samples, leave the column out of the target, or choose "
            "another data.split_seed or larger parts"
        )


def count_classes(y: Tensor, width: int) -> Tensor:
    """How many samples each class has: (width,) for classes (N,); (width, 2) for labels (N, width) of 0 and 1."""
    if y.ndim == 1:
        return y.new_zeros(width).scatter_add_(0, y, torch.ones_like(y))  # a GPU would wait for torch.bincount
    ones = y.sum(0)
    return torch.stack([len(y) - ones, ones], dim=1)


def check_finite(y: Tensor, where: str) -> None:
    """Raises ConfigError where some of the targets (N, width) are NaN or inf."""
    bad = int((~torch.isfinite(y)).any(1).sum())
    if bad:
        raise ConfigError(f"{where}: {bad} of {len(y)} targets are NaN or inf; leave those samples out")


def check_varies(y: Tensor, where: str) -> None:
    """Raises ConfigError for a target (N, width) with a constant column, which leaves nothing to learn."""
    constant = torch.nonzero((y == y[:1]).all(0)).flatten().tolist()
    if constant:
        column = "" if y.shape[1] == 1 else f" in column {constant[0]}"
        raise ConfigError(f"{where}: the target is {float(y[0, constant[0]]):g} in all {len(y)} samples{column}")
