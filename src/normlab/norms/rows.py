"""Moments and sums over space of each sample's channels, the rows of (N, C, *space), by torch's fastest kernels.

Group norm with one group a channel takes a row's mean and variance in one pass without cancellation, and its backward
a row's sums of products; plain formulas of torch take two to ten times as long (benchmarks/README.md).
"""

import torch
from torch import Tensor


def has_fast_rows(x: Tensor) -> bool:
    """Whether group norm's kernels serve `x`: rows in one piece, of more than one value, and not of 16 bits."""
    return x.is_contiguous() and x.dtype in (torch.float32, torch.float64) and x[0, 0].numel() > 1


def row_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (N, C) over space; `x` (N, C, *space) of 32 or 64 bits."""
    if not has_fast_rows(x):
        var, mean = torch.var_mean(x.flatten(2), 2, correction=0)
        return mean, var
    n, c, space = len(x), x.shape[1], x[0, 0].numel()
    _, mean, rstd = torch.native_group_norm(x, None, None, n, c, space, c, 0.0)  # ε = 0 leaves σ^-1 itself
    return mean, rstd.pow(-2)
