"""Batch norm of the parts of a batch, each with its own statistics, in the passes over memory of one batch norm.

Taken apart, normalised and put together again, a batch would be read and written twice as often.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from normlab.norms.own import per_channel
from normlab.norms.rows import has_fast_rows, row_moments

Statistics = tuple[Tensor, Tensor, Tensor]


def batch_norm_parts(x: Tensor, sizes: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Statistics:
    """Normalises consecutive parts of `sizes` samples of (N, C, *space), each by its own mean and biased variance.

    weight, bias: (C,) for all parts, or (parts, C). Returns the output, and each part's mean and unbiased variance
    (parts, C), which carry no gradient. Raises ValueError for a part with one value per channel.
    """
    if min(sizes) * x[0, 0].numel() < 2:
        raise ValueError(f"Expected more than 1 value per channel in each part of {list(sizes)} samples")
    shape = (len(sizes), x.shape[1])
    return _Parts.apply(x, weight.expand(shape), bias.expand(shape), list(sizes), eps)  # pyright: ignore


class _Parts(torch.autograd.Function):
    """Torch's batch norm of each part, forward and backward, written into one tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], eps: float) -> Statistics:
        y, mean, rstd = (
            _by_rows(x, weight, bias, sizes, eps) if has_fast_rows(x) else _each(x, weight, bias, sizes, eps)
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.sizes, ctx.eps = sizes, eps
        values = mean.new_tensor(sizes).unsqueeze(1) * x[0, 0].numel()
        unbiased_var = (rstd.pow(-2) - eps).clamp_(min=0) * (values / (values - 1))
        ctx.mark_non_differentiable(mean, unbiased_var)
        return y, mean, unbiased_var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, mean, rstd = ctx.saved_tensors
        d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
        parts = zip(*(t.split(ctx.sizes) for t in (d_x, upstream, x)), strict=True)
        for k, (into, g, part) in enumerate(parts):
            d_part, d_weight[k], d_bias[k] = torch.ops.aten.native_batch_norm_backward(
                g, part, weight[k], None, None, mean[k], rstd[k], True, ctx.eps, [True, True, True]
            )
            into.copy_(d_part)  # still in the processor's cache
        return d_x, d_weight, d_bias, None, None


def _each(x: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], eps: float) -> Statistics:
    """Output, mean and σ^-1 of the parts, one kernel a part."""
    y = torch.empty_like(x)
    mean, rstd = (weight.new_empty(weight.shape) for _ in range(2))
    for k, (into, part) in enumerate(zip(y.split(sizes), x.split(sizes), strict=True)):
        torch.ops.aten.native_batch_norm.out(
            part, weight[k], bias[k], None, None, True, 0.0, eps, out=into, save_mean=mean[k], save_invstd=rstd[k]
        )
    return y, mean, rstd


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], eps: float) -> Statistics:
    """The same from the moments of each sample's channels, which torch has a faster kernel for."""
    row_mean, row_var = row_moments(x)
    mean = torch.stack([rows.mean(0) for rows in row_mean.split(sizes)])
    part_of = torch.repeat_interleave(torch.tensor(sizes, device=x.device), output_size=len(x))
    spread = row_var + (row_mean - mean[part_of]).square_()
    rstd = torch.stack([rows.mean(0) for rows in spread.split(sizes)]).add_(eps).rsqrt_()
    scale = weight * rstd
    shift = bias - mean * scale  # rounded as x scale below is, so that a constant channel gives β
    if len(sizes) == 1:
        return torch.mul(x, per_channel(scale[0], x)).add_(per_channel(shift[0], x)), mean, rstd
    rows = (*row_mean.shape, *[1] * (x.ndim - 2))
    return torch.mul(x, scale[part_of].view(rows)).add_(shift[part_of].view(rows)), mean, rstd
