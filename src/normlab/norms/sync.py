"""Synchronised batch normalization: statistics over the batches of all processes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from normlab.norms.base import Norm
from normlab.norms.declaration import BATCH, Declaration
from normlab.norms.moments import part_moments, part_sums
from normlab.norms.own import OwnLayer
from normlab.norms.rows import affine, of_rows
from normlab.norms.running import RunningNorm


class _SyncBatchNorm(torch.autograd.Function):
    """Batch norm over all ranks. One gather forward, one sum backward; every rank must take part, an empty one too.

    With a and b = Σ dy and Σ dy (x - μ) R over all ranks and M values: dx = γ R (dy - a / M - (x - μ) R b / M).
    The gradients of γ and β are this rank's own sums; DistributedDataParallel adds the ranks'.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        counts, means, variances = _gather(x)
        values = counts.sum()
        if values < 2:
            raise ValueError("norm=sync: Expected more than 1 value per channel over all processes")
        mean = (counts * means).sum(0) / values
        square = (counts * (variances + (means - mean).square())).sum(0)  # Σ (x - μ)² of all, without cancellation
        var = square / values
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), values)
        unbiased_var = square / (values - 1)
        ctx.mark_non_differentiable(mean, unbiased_var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, unbiased_var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, mean, rstd, values = ctx.saved_tensors
        d_bias, d_weight = _sums(upstream, x, mean)
        d_weight = d_weight * rstd
        a, b = total = torch.stack([d_bias, d_weight])
        distributed.all_reduce(total)
        scale = weight * rstd
        slope = -scale * rstd * b / values
        shift = -scale * a / values - slope * mean
        of_dy = of_rows(scale.unsqueeze(0), x)
        d_x = affine(x, slope.unsqueeze(0), shift.unsqueeze(0)).addcmul_(upstream, of_dy)
        return d_x.to(x.dtype), d_weight, d_bias, None


def _gather(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each rank: values per channel (ranks, 1), mean and biased variance (ranks, C)."""
    count = x.numel() // x.shape[1]
    if count:
        mean, var = part_moments(x, [len(x)])
    else:
        mean = var = x.new_zeros(1, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    own = torch.cat([mean.new_tensor([count]), mean[0], var[0]])
    ranks = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(ranks, own)
    counts, means, variances = torch.stack(ranks).split([1, x.shape[1], x.shape[1]], 1)
    return counts, means, variances


def _sums(g: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g and Σ g (x - μ) (C,) of this rank."""
    if not x.numel():  # torch's kernels cannot take an empty batch
        return torch.zeros_like(mean), torch.zeros_like(mean)
    of_g, of_products = part_sums(g, x, [len(x)], mean.unsqueeze(0))
    return of_g[0], of_products[0]


class SyncLayer(RunningNorm):
    """See `Sync`. State as `nn.BatchNorm*d`."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        alone = not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)
        if alone or not self.training:
            self.check_input(x)
            return self.normalize(x) if self.training else self.evaluate(x)
        OwnLayer.check_input(self, x)  # which lets a rank without samples take part
        y, mean, unbiased_var = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps)  # pyright: ignore
        self.track(mean, unbiased_var)
        return y


@dataclass(frozen=True)
class Sync(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over the batches of all processes and space; input (N, C, *space).

    Each process weighs as many values as it has; one without any still has to take part. In a single process it is
    batch norm. Works on every device and backend, on the CPU too. The state is that of `nn.BatchNorm*d`, and evaluation
    is batch norm's, without communication. Does not help where each process sees batches large enough: it then only
    waits for the others, twice a layer and step.

    Peng et al., MegDet: A Large Mini-Batch Object Detector, 2018, arXiv:1711.07240.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return SyncLayer(self.name, num_features, dims, self.eps, self.momentum)
