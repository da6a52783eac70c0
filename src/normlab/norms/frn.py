"""Filter response normalization with a thresholded linear unit."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.activating import ActivatingNorm
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import SPACE, Declaration
from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.layer import per_channel
from normlab.norms.common.rows import of_rows, positive_part, row_sums, space_axes


class _FilterResponse(Derived):
    """y = max(γ x r + β, τ) with r = (mean_space x² + ε)^-½; parameters in the shape (1, C, 1, …).

    With g the gradient where z = γ x r + β exceeds τ, and A = Σ_space g x of each sample and channel:
    dγ = Σ_N r A, dβ = Σ g, dτ = the rest of the gradient, dx = γ r g - x γ r³ A / |space|.
    """

    @staticmethod
    def formula(x: Tensor, weight: Tensor, bias: Tensor, tau: Tensor, eps: float) -> Tensor:  # pyright: ignore
        z = weight * x * (x.square().mean(space_axes(x), keepdim=True) + eps).rsqrt() + bias
        return torch.where(z <= tau, tau, z)

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, tau: Tensor, eps: float) -> Tensor:
        axes = space_axes(x)
        if x.is_contiguous():  # one pass; over strided axes the norm's kernel is slow
            mean_square = torch.linalg.vector_norm(x, dim=axes, keepdim=True).square_().div_(math.prod(x.shape[2:]))
        else:
            mean_square = x.square().mean(axes, keepdim=True)
        r = mean_square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, bias, tau, r)
        ctx.eps = eps
        return torch.addcmul(bias, x, weight * r).clamp_(min=tau)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, bias, tau, r = ctx.saved_tensors
        if again():
            return *gradients(_FilterResponse, (x, weight, bias, tau), upstream, eps=ctx.eps), None
        axes = space_axes(x)
        above = torch.addcmul(bias - tau, x, weight * r)
        g = positive_part(upstream, above)
        per_row, a = (of_rows(sums, x) for sums in row_sums(g, x))
        total = upstream.sum((0, *axes), keepdim=True)
        d_bias = per_row.sum(0, keepdim=True)
        d_x = g.mul_(weight * r).addcmul_(x, weight * a * r**3 / math.prod(x.shape[2:]), value=-1)
        return d_x, (r * a).sum(0, keepdim=True), d_bias, total - d_bias, None


class FilterResponseLayer(ActivatingNorm):
    """See `FilterResponse`. Parameters weight, bias and tau, (C,) each; no other state."""

    declaration = Declaration(SPACE, activation=True, centred=False, drop_in=False)

    def __init__(self, num_features: int, dims: int, eps: float):
        super().__init__("frn", num_features, dims, eps)
        self.tau = nn.Parameter(torch.zeros(num_features))

    def compute(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[2:]) < 2:
            raise ValueError(f"norm=frn: Expected more than 1 value of space, got an input of shape {tuple(x.shape)}")
        parameters = (per_channel(values, x) for values in (self.weight, self.bias, self.tau))
        return derived(_FilterResponse, x, *parameters, self._eps)


@dataclass(frozen=True)
class FilterResponse(Norm):
    """y = max(γ x / √(mean_space x² + ε) + β, τ) with γ, β, τ of each channel; input (N, C, *space), 1 to 3 dimensions.

    The mean is not taken off. It contains its activation, the threshold τ. Training and evaluation are the same; there
    is no state besides γ, β and τ. Does not help where maps are small: over few values x / √(mean x²) is little more
    than the sign, and a single one is refused.

    Singh & Krishnan, Filter Response Normalization Layer, 2020, arXiv:1911.09737.
    """

    eps: float = 1e-6

    carries_activation = True

    @property
    def name(self) -> str:
        return "frn"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        if dims == 0:
            raise ValueError("norm=frn takes its statistics over space, which a norm on a dense layer does not have")
        return FilterResponseLayer(num_features, dims, self.eps)
