"""The base of every layer of normlab: its size, the check of its input, and how it prints."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.declaration import declaration

ONES = ("weight", "batch_weight", "v", "running_var", "running_square")  # start as ones; all others start as zeros
AFFINE = ("weight", "bias")  # parameters, or buffers where nothing is trained


class UnfoldableEps:
    """Stands in for ε where adding it to the running variance, as folding does, would be a mistake.

    Reading the attribute raises no error, as tools such as torch.jit ask a layer for all of its attributes.
    """

    def __init__(self, reason: str):
        self.reason = reason

    def __radd__(self, variance: Tensor) -> Tensor:
        """Raises ValueError with the reason."""
        raise ValueError(self.reason)

    __add__ = __radd__


class NormLayer(nn.Module):
    """A layer for (N, num_features, *space) with `dims` spatial dimensions; `name` is its option's, for messages."""

    def __init__(self, name: str, num_features: int, dims: int, eps: float):
        super().__init__()
        self.name, self.num_features, self.dims, self._eps = name, num_features, dims, eps

    @property
    def eps(self) -> Any:
        """ε of the layer, a number; an `UnfoldableEps` where the layer only looks like a BatchNorm.

        It then has a BatchNorm's attributes and is, in evaluation, not the fixed map of each channel that a BatchNorm
        with these would be, which torch's `fuse_conv_bn_eval` would fold into the layer before.
        """
        declared = declaration(self)
        if "running_mean" in self._buffers and declared is not None and not declared.foldable:
            return UnfoldableEps(
                f"norm={self.name}: in evaluation the layer is no fixed affine map of each channel by its running "
                "statistics, so the layer before it cannot absorb it; fuse norms with `folds` in docs/norms.md"
            )
        return self._eps

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Resets the layer's parameters and buffers to their first values."""
        for name, values in chain(self.named_parameters(recurse=False), self.named_buffers(recurse=False)):
            self._begin(name, values)

    @torch.no_grad()
    def reset_running_stats(self) -> None:
        """Resets what the layer keeps of past batches."""
        for name, values in self.named_buffers(recurse=False):
            if name not in AFFINE:
                self._begin(name, values)

    def _begin(self, name: str, values: Tensor) -> None:
        """Gives the parameter or buffer of that name its first values."""
        values.fill_(1 if name in ONES else 0)

    def check_input(self, x: Tensor) -> None:
        """Raises ValueError unless `x` is floating-point, of the layer's rank and number of features."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.num_features:
            expected = f"(N, {self.num_features}{', …' * self.dims})"
            raise ValueError(f"norm={self.name}: got an input of shape {tuple(x.shape)}, expected {expected}")
        if not x.is_floating_point():
            raise ValueError(f"norm={self.name}: got {x.dtype}, expected floating-point numbers")

    def check_not_empty(self, x: Tensor) -> None:
        """Raises ValueError for an empty batch, or one without space."""
        if not x.numel():
            raise ValueError(f"norm={self.name}: got an input of shape {tuple(x.shape)}, without a value to normalize")

    def extra_repr(self) -> str:
        return f"{self.num_features}, dims={self.dims}, eps={self._eps}"


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) in the shape that broadcasts over `x` (N, C, *space)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def has_16_bits(x: Tensor) -> bool:
    """Whether `x` is of float16 or bfloat16."""
    return x.dtype in (torch.float16, torch.bfloat16)


def widened(values: Tensor, x: Tensor) -> Tensor:
    """Parameters or statistics in the type of `x` where they have 16 bits; others stay as they are."""
    return values.to(x.dtype) if has_16_bits(values) else values


def in_float32(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`compute(x)` outside autocast; 16-bit inputs are computed in float32, and the result is in their type again."""
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return compute(x.float() if has_16_bits(x) else x).to(x.dtype)
