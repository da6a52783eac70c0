"""Refuses targets that no task can be trained on."""

import torch
from torch import Tensor

from normlab.errors import ConfigError


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
