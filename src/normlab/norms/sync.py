"""Synchronised batch normalization: statistics over the batches of all processes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from normlab.norms.base import Norm
from normlab.norms.declaration import BATCH, Declaration
from normlab.norms.own import per_channel
from normlab.norms.running import RunningNorm, channel_moments


class _SyncBatchNorm(torch.autograd.Function):
    """Batch norm over all ranks. One gather forward, one sum backward; every rank must take part, an empty one too.

    With a and b = Σ dy and Σ dy (x - μ) R over all ranks and M values: dx = γ R (dy - a / M - (x - μ) R b / M).
    The gradients of γ and β are this rank's own sums; DistributedDataParallel adds the ranks'.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        counts, means, squares = _gather(x, weight)
        values = counts.sum()
        if values < 2:
            raise ValueError("norm=sync: Expected more than 1 value per channel over all processes")
        mean = (counts * means).sum(0) / values
        square = (squares + counts * (means - mean) ** 2).sum(0)  # Σ (x - μ)² of all ranks, without cancellation
        var = square / values
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), values)
        ctx.eps = eps
        unbiased_var = square / (values - 1)
        ctx.mark_non_differentiable(mean, unbiased_var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, unbiased_var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, mean, rstd, values = ctx.saved_tensors
        own = torch.zeros_like(mean), torch.zeros_like(mean)  # of an empty rank, which torch's kernel cannot take
        if x.numel():
            _, *own = torch.ops.aten.native_batch_norm_backward(
                upstream, x, weight, None, None, mean, rstd, True, ctx.eps, [False, True, True]
            )
        total = torch.stack(list(own))
        distributed.all_reduce(total)
        scale = weight * rstd
        slope = -scale * rstd * total[0] / values
        shift = -scale * total[1] / values - slope * mean
        # in the input's type: 16-bit values times float32 vectors would be float32
        of_x, of_dy, shift = (per_channel(t, x).to(x.dtype) for t in (slope, scale, shift))
        return torch.addcmul(shift, x, of_x).addcmul_(upstream, of_dy), *own, None


def _gather(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each rank: values per channel (ranks, 1), mean and Σ (x - μ)² (ranks, C)."""
    count = x.numel() // x.shape[1]
    mean, unbiased_var = channel_moments(x) if count > 1 else (x.float().sum((0, *range(2, x.ndim))), 0 * weight)
    own = torch.cat([mean.new_tensor([count]), mean, unbiased_var * max(count - 1, 0)])
    ranks = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(ranks, own)
    gathered = torch.stack(ranks)
    return gathered[:, :1], *gathered[:, 1:].chunk(2, 1)


class SyncLayer(RunningNorm):
    """See `Sync`. State as `nn.BatchNorm*d`."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
            return self.normalize(x)
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
