"""What every own layer shares: its size, the check of its input, and how it shows itself."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn


class OwnLayer(nn.Module):
    """A layer for (N, num_features, *space) with `dims` spatial dimensions; `name` is its option's, for messages."""

    def __init__(self, name: str, num_features: int, dims: int, eps: float):
        super().__init__()
        self.name, self.num_features, self.dims, self.eps = name, num_features, dims, eps

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
        return f"{self.num_features}, dims={self.dims}, eps={self.eps}"


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) in the shape that broadcasts over `x` (N, C, *space)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def has_16_bits(x: Tensor) -> bool:
    """Whether `x` is of float16 or bfloat16."""
    return x.dtype in (torch.float16, torch.bfloat16)


def widened(values: Tensor, x: Tensor) -> Tensor:
    """Parameters or statistics of 16 bits, as a network of 16 bits has them, in the type of `x`; others as they are."""
    return values.to(x.dtype) if has_16_bits(values) else values


def in_float32(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`compute(x)` outside autocast; 16-bit inputs are computed in float32 and given back as they came."""
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return compute(x.float() if has_16_bits(x) else x).to(x.dtype)
