"""Batch statistics over all processes (ranks): one collective in the forward pass, one in the backward pass.

Ranks may hold different numbers of samples, and some none; but each must send its batch through every layer.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from normlab.distributed.collectives import _sum, gather
from normlab.norms.common.moments import whole_moments


def joint_moments(x: Tensor, layer: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `moments` gives, of the batches of all ranks taken together, and the unbiased variance.

    Raises ValueError, with the name of the `layer`, where all ranks together hold a single value per channel.
    """
    way, mean, var = whole_moments(x)
    return way, *_Joined.apply(mean, var, x.numel() // x.shape[1], layer)  # pyright: ignore[reportReturnType]


class _Joined(torch.autograd.Function):
    """Mean, biased and unbiased variance (1, C) of all from each rank's mean μ_r, biased variance σ²_r and count n_r.

    μ = Σ n_r μ_r / n and σ² = Σ n_r (σ²_r + (μ_r - μ)²) / n, which does not cancel as a mean of squares would. With dμ
    and dσ² the sums of all ranks' gradients, dμ_r = n_r (dμ + 2 dσ² (μ_r - μ)) / n and dσ²_r = n_r dσ² / n.
    It cannot be differentiated again, which would need two collectives more.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, var: Tensor, count: int, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        ranks = gather(torch.cat([mean.new_full((1,), count), mean[0], var[0]]), layer)
        counts, means, variances = ranks.split([1, mean.shape[1], mean.shape[1]], 1)
        n = counts.sum()
        if count < 2 and n < 2:  # a larger count would be enough to know, without waiting for the device
            raise ValueError(f"{layer}: Expected more than 1 value per channel over all processes")
        joint = (counts * means).sum(0, keepdim=True) / n
        square = (counts * (variances + (means - joint).square())).sum(0, keepdim=True)
        ctx.save_for_backward(mean - joint, count / n)
        ctx.layer = layer
        unbiased = square / (n - 1)
        ctx.mark_non_differentiable(unbiased)
        return joint, square / n, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_var: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        from_mean, share = ctx.saved_tensors
        of_mean, of_var = _sum(torch.stack([of_mean, of_var]), ctx.layer)
        return share * (of_mean + 2 * of_var * from_mean), share * of_var, None, None
