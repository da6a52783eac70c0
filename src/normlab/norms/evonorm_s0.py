"""EvoNorm-S0: a normalization of each sample that contains its activation."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.activating import ActivatingNorm
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import SAMPLE, Declaration
from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.layer import per_channel
from normlab.norms.common.rows import of_rows, pooled, row_moments, row_sums, space_axes
from normlab.norms.group import number_of_groups


class _EvoNormS0(Derived):
    """y = γ x s R + β with s = σ(v x) and R = (σ²_group + ε)^-½; parameters in the shape (1, C, 1, …).

    With g = γ dy, M values and the mean μ of a group, and D = Σ_group g x s:
    dx = R g (s + v x s (1 - s)) - R³ D (x - μ) / M, dv = Σ R g x² s (1 - s), dγ = Σ dy x s R, dβ = Σ dy.
    """

    @staticmethod
    def formula(x: Tensor, weight: Tensor, bias: Tensor, v: Tensor, groups: int, eps: float) -> Tensor:  # pyright: ignore
        rstd = (x.reshape(x.shape[0], groups, -1).var(2, correction=0) + eps).rsqrt()
        return weight * x * (v * x).sigmoid() * _of_channels(rstd, x) + bias

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, v: Tensor, groups: int, eps: float) -> Tensor:
        n, c, space = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        if x.is_contiguous():  # the kernel of group norm leaves μ and R of each (sample, group) in one pass
            _, mean, rstd = torch.native_group_norm(x, None, None, n, c, space, groups, eps)
        else:  # in channels_last it takes E[x²] - μ², which cancels
            row_mean, row_var = (rows.view(n, groups, -1) for rows in row_moments(x))
            mean, var = (of_groups.squeeze(2) for of_groups in pooled(row_mean, row_var, 2))
            rstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, bias, v, mean, rstd)
        ctx.settings = {"groups": groups, "eps": eps}
        scale = weight * _of_channels(rstd, x)
        return (v * x).sigmoid_().mul_(x).mul_(scale).add_(bias)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, bias, v, mean, rstd = ctx.saved_tensors
        if again():
            return *gradients(_EvoNormS0, (x, weight, bias, v), upstream, **ctx.settings), None, None
        axes, groups = space_axes(x), rstd.shape[1]
        r, values = _of_channels(rstd, x), math.prod(x.shape[1:]) // groups
        s = (v * x).sigmoid_()
        of_v = torch.ops.aten.sigmoid_backward(upstream, s).mul_(x)  # dy x s (1 - s)
        d_x = s.mul_(upstream)
        per_row = of_rows(row_sums(d_x, x)[1], x)  # Σ_space dy x s, (N, C, 1, …)
        scale = weight * r
        d_v = (of_rows(row_sums(of_v, x)[1], x) * scale).sum(0, keepdim=True)
        d = (per_row * weight).view(x.shape[0], groups, -1).sum(2)  # D, (N, groups)
        pull = d * rstd**3 / values
        d_x.mul_(scale).addcmul_(of_v, scale * v)
        centred = torch.sub(x, _of_channels(mean, x), out=of_v)  # D R³ may be large: nothing is to cancel
        d_x.addcmul_(centred, _of_channels(pull, x), value=-1)
        d_bias = upstream.sum((0, *axes), keepdim=True)
        return d_x, (per_row * r).sum(0, keepdim=True), d_bias, d_v, None, None


def _of_channels(of_groups: Tensor, x: Tensor) -> Tensor:
    """(N, groups) repeated for the channels of each group, as (N, C, 1, …)."""
    return of_rows(of_groups.repeat_interleave(x.shape[1] // of_groups.shape[1], 1), x)


class EvoNormS0Layer(ActivatingNorm):
    """See `EvoNormS0`. Parameters weight, bias and v, (C,) each; no other state."""

    def __init__(self, num_features: int, dims: int, groups: int, eps: float):
        super().__init__("evonorm_s0", num_features, dims, eps)
        self.groups = groups
        self.v = nn.Parameter(torch.ones(num_features))
        self.declaration = Declaration(SAMPLE, groups=groups, centred=False, activation=True, drop_in=False)

    def compute(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[1:]) // self.groups < 2:
            raise ValueError(f"norm=evonorm_s0: Expected more than 1 value a group, got a shape of {tuple(x.shape)}")
        parameters = (per_channel(values, x) for values in (self.weight, self.bias, self.v))
        return derived(_EvoNormS0, x, *parameters, self.groups, self._eps)


@dataclass(frozen=True)
class EvoNormS0(Norm):
    """y = γ x σ(v x) / √(σ²_group + ε) + β with σ²_group over space and the channels of a group of each sample.

    Input (N, C, *space), 0 to 3 dimensions. It contains its activation, a Swish with a slope v of each channel.
    Training and evaluation are the same; there is no state besides γ, β and v. `num_groups=None` takes group norm's
    rule. Does not help under large batches, where batch norm or EvoNorm-B0 usually score higher.

    Liu, Brock, Simonyan & Le, Evolving Normalization-Activation Layers, 2020, arXiv:2004.02967.
    """

    num_groups: int | None = None
    eps: float = 1e-5

    carries_activation = True

    @property
    def name(self) -> str:
        return "evonorm_s0"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return EvoNormS0Layer(num_features, dims, number_of_groups(self.num_groups, num_features), self.eps)
