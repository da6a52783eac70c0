"""Losses by configuration: `loss=` chooses any function of (output, target), which is tried before any training."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def own(output: Tensor, target: Tensor) -> Tensor:
    """Stands in conf/loss/task.yaml for the loss that a task has by itself. Nothing calls it."""
    raise AssertionError("a task whose loss is its own was given another")


def focal(output: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """The mean over samples of -(1 - p)^γ log p, where p is the probability of a sample's class.

    output: logits (N, classes). target: classes (N,), or shares of classes (N, classes), whose terms are added up.
    Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv:1708.02002.
    """
    log_p = output.log_softmax(1)
    rest = (-log_p.expm1()).clamp_min(torch.finfo(output.dtype).tiny)  # the slope at 0 is infinite where γ < 1
    terms = -(rest**gamma) * log_p
    if target.ndim == 1:
        return terms.gather(1, target[:, None]).mean()
    return (terms * target).sum(1).mean()


def name_of(loss: Loss) -> str:
    """What a message calls a loss."""
    function = getattr(loss, "func", loss)
    return getattr(function, "__name__", type(loss).__name__)


def try_loss(loss: Loss, right: Tensor, wrong: Tensor, target: Tensor) -> None:
    """Raises ValueError for a loss that cannot train this task, or whose value is not the mean over samples.

    right, wrong: outputs that answer the target well and badly, a row a sample.
    """
    name, shapes = name_of(loss), f"outputs {tuple(wrong.shape)} and targets {tuple(target.shape)}"
    if isinstance(loss, nn.Module) and next(loss.parameters(), None) is not None:
        raise ValueError(f"loss: {name} has weights of its own to train, which is not supported")
    wrong = wrong.clone().requires_grad_()
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of shapes that it then refuses
            value, better = loss(wrong, target), loss(right, target)
            twice = loss(torch.cat([wrong, wrong]), torch.cat([target, target]))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"loss: {name} cannot take {shapes}: {error}; choose another loss=") from error
    if not isinstance(value, Tensor) or value.ndim != 0:
        raise ValueError(f"loss: {name} gives no single number; expected the mean over the samples of a batch")
    if not value.isfinite() or not value.requires_grad or not better < value or torch.isclose(better, value):
        raise ValueError(
            f"loss: {name} of {shapes} is {better.item():.4g} for right answers and {value.item():.4g} for wrong ones, "
            "so it cannot train this task; choose another loss="
        )
    if not torch.allclose(value, twice):
        raise ValueError(f"loss: {name} grows with the number of samples; expected their mean, as reduction=mean gives")


def trial_classes(classes: int) -> tuple[Tensor, Tensor]:
    """Logits (classes + 1, classes) that answer well, and their classes; no broadcasting makes them fit each other."""
    target = torch.arange(classes + 1) % classes
    return 10.0 * F.one_hot(target, classes), target


def trial_labels(columns: int) -> tuple[Tensor, Tensor]:
    """Logits (columns + 1, columns) that answer well, and their labels, of which each column has both."""
    target = (torch.arange(columns + 1)[:, None] + torch.arange(columns)) % 2.0
    return 20 * target - 10, target


def trial_numbers(width: int) -> Tensor:
    """Standardised targets (4, width)."""
    return torch.linspace(-1.5, 1.5, 4 * width).reshape(width, 4).T.contiguous()
