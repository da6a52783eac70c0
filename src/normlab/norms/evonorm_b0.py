"""EvoNorm-B0: a normalization by batch and sample statistics that contains its nonlinearity."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.activating import ActivatingNorm
from normlab.norms.common.base import Norm
from normlab.norms.common.checkpointing import moves_statistics
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.moments import moments
from normlab.norms.common.population import Population
from normlab.norms.common.rows import affine, of_rows, pooled, positive_part, row_sums, space_axes


class _ByTheLarger(Derived):
    """y = γ x / q + β with q = max(a, v x + b); γ, β, v and a (1, C), b (N, C).

    With h = dy x / q² and m = 1 where v x + b > a, else 0, sums over what an argument is broadcast over:
    dβ = Σ dy, dγ = Σ dy x / q, dv = -γ Σ m h x, db = -γ Σ m h, da = -γ Σ (1 - m) h, dx = γ (dy / q - m v h).
    dx goes back along the way of `moments`.
    """

    @staticmethod
    def formula(x: Tensor, way: Tensor, weight: Tensor, bias: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        weight, bias, v, a, b = (of_rows(values, x) for values in (weight, bias, v, a, b))
        own = v * x + b
        return weight * x / torch.where(own <= a, a, own) + bias

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, way: Tensor, weight: Tensor, bias: Tensor, v: Tensor, a: Tensor, b: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, way, weight, bias, v, a, b)
        q = affine(x, v, b).clamp_(min=of_rows(a, x))
        return torch.div(x, q, out=q).mul_(of_rows(weight, x)).add_(of_rows(bias, x))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, _, weight, _, v, a, b = ctx.saved_tensors
        if again():
            of_x, _, *others = gradients(_ByTheLarger, ctx.saved_tensors, upstream)
            return None, of_x, *others
        excess = affine(x, v, b - a)
        inverse = excess.clamp(min=0).add_(of_rows(a, x)).reciprocal_()
        by_q = upstream * inverse
        h = inverse.mul_(x).mul_(by_q)
        h_of_rows = h.sum(space_axes(x))
        h = positive_part(h, excess)  # m h
        _, d_weight = row_sums(by_q, x)
        mh, mhx = row_sums(h, x)
        d_x = by_q.mul_(of_rows(weight, x)).addcmul_(h, of_rows(-weight * v, x))
        d_bias = upstream.sum((0, *space_axes(x))).unsqueeze(0)
        d_v, d_a = ((-weight * rows).sum(0, keepdim=True) for rows in (mhx, h_of_rows - mh))
        return None, d_x, d_weight.sum(0, keepdim=True), d_bias, d_v, d_a, -weight * mh


class EvoNormB0Layer(ActivatingNorm):
    """See `EvoNormB0`. Parameters weight, bias and v, buffer running_var, (C,) each."""

    declaration = Declaration(BATCH, running_stats=True, activation=True, centred=False, drop_in=False)
    running_var: Tensor

    def __init__(self, num_features: int, dims: int, eps: float, momentum: float):
        super().__init__("evonorm_b0", num_features, dims, eps)
        self.momentum = momentum
        self.v = nn.Parameter(torch.ones(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def compute(self, x: Tensor) -> Tensor:
        way, mean, var = moments(x, None)
        batch_var = self._of_batch(x, mean, var) if self.training else self.running_var
        a, b = (batch_var + self._eps).sqrt(), (var + self._eps).sqrt()
        weight, bias, v, a = (values.unsqueeze(0) for values in (self.weight, self.bias, self.v, a))
        return derived(_ByTheLarger, x, way, weight, bias, v, a, b)

    def take_over(self, population: Population, of_batch: bool) -> None:
        """See `normlab.norms.common.population.take_over`."""
        self.running_var.copy_(population.biased_variance if of_batch else population.variance)

    def _of_batch(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """The batch's biased variance (C,) from its rows' moments; the running one follows the unbiased."""
        values = x.numel() // self.num_features
        if values < 2:
            raise ValueError(f"norm=evonorm_b0: Expected more than 1 value per channel, got shape {tuple(x.shape)}")
        batch_var = pooled(mean, var, 0)[1][0]
        if moves_statistics():
            unbiased = batch_var.detach() * (values / (values - 1))
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return batch_var


@dataclass(frozen=True)
class EvoNormB0(Norm):
    """y = γ x / max(√(σ²_batch + ε), v x + √(σ²_space + ε)) + β with v of each channel; input (N, C, *space).

    1 to 3 dimensions of space. σ²_batch is batch norm's biased variance, σ²_space that of a sample's channel over its
    space. It contains its nonlinearity. In evaluation σ²_batch is the running one, which training moves towards the
    unbiased by `momentum`; state: γ, β, v and that. Does not help where batches are small, as batch norm does not.

    Liu, Brock, Simonyan & Le, Evolving Normalization-Activation Layers, 2020, arXiv:2004.02967.
    """

    eps: float = 1e-3
    momentum: float = 0.1

    carries_activation = True

    @property
    def name(self) -> str:
        return "evonorm_b0"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        if dims == 0:
            raise ValueError("norm=evonorm_b0 takes a variance over space, which a norm on a dense layer does not have")
        return EvoNormB0Layer(num_features, dims, self.eps, self.momentum)
