"""Moments and sums of rows: the values of one sample's channel over space in (N, C, *space).

Group norm with one group a channel takes a row's mean and variance in one pass without cancellation, and its backward
a row's sums of products; plain formulas of torch take two to ten times as long (benchmarks/README.md).
"""

import math

import torch
from torch import Tensor


def has_fast_rows(x: Tensor) -> bool:
    """Whether group norm's kernels can be used for `x`: contiguous rows of more than one value, not of 16 bits."""
    return x.is_contiguous() and x.dtype in (torch.float32, torch.float64) and math.prod(x.shape[2:]) > 1


def row_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (N, C) over space, with at least 32 bits."""
    n, c, space = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if has_fast_rows(x):
        _, mean, rstd = torch.native_group_norm(x, None, None, n, c, space, c, 0.0)  # ε = 0 leaves σ^-1 itself
        return mean, rstd.pow(-2)
    axes, dtype = space_axes(x), torch.promote_types(x.dtype, torch.float32)
    if not axes:
        return x.to(dtype), torch.zeros_like(x, dtype=dtype)
    mean = x.sum(axes, dtype=dtype).div_(space)
    return mean, (x - of_rows(mean, x)).square_().sum(axes).div_(space)


def pooled(mean: Tensor, var: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Joint mean and biased variance of the rows along `axis`, from each row's own; all rows have one size."""
    together = mean.mean(axis, keepdim=True)
    return together, (var + (mean - together).square()).mean(axis, keepdim=True)


def row_sums(g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g and Σ g x (N, C) over space, of 32 bits at least; `g` and `x` (N, C, *space)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    g, x = g.to(dtype), x.to(dtype)  # a product of 16-bit numbers may overflow
    compiled = torch.compiler.is_compiling()  # compiling would fix the kernel's groups, and so the batch size
    if compiled or not (has_fast_rows(x) and g.is_contiguous()):
        axes = space_axes(x)
        return (g.sum(axes), (g * x).sum(axes)) if axes else (g, g * x)
    # These are the gradients of γ and β of a single sample with N · C channels, each a group, with mean 0 and σ = 1.
    rows, space = x.shape[0] * x.shape[1], math.prod(x.shape[2:])
    zero, one = x.new_zeros(1, rows), x.new_ones(1, rows)
    _, of_products, of_g = torch.ops.aten.native_group_norm_backward(
        g.view(1, rows, space), x.view(1, rows, space), zero, one, one[0], 1, rows, space, rows, [False, True, True]
    )
    return of_g.view(x.shape[:2]), of_products.view(x.shape[:2])


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift, with `scale` and `shift` (N, C) for rows or (1, C) for channels, whose type 16 bits take."""
    scale, shift = of_rows(scale, x), of_rows(shift, x)
    # In a backward pass torch.compile would copy the gradients where a layout is asked for.
    if not torch.compiler.is_compiling() and x.is_contiguous():
        # Two passes with one broadcast operand are faster here than one pass with two.
        return torch.mul(x, scale).add_(shift)
    return torch.addcmul(shift, x, scale)


def positive_part(g: Tensor, where: Tensor) -> Tensor:
    """`g` where `where` is above 0, and 0 elsewhere, written over `where`; a mask would take another pass."""
    return torch.ops.aten.threshold_backward.grad_input(g, where, 0, grad_input=where)


def of_rows(values: Tensor, x: Tensor) -> Tensor:
    """(N, C), or (1, C), in the shape that broadcasts over `x` (N, C, *space)."""
    return values.view(*values.shape, *[1] * (x.ndim - 2))


def space_axes(x: Tensor) -> tuple[int, ...]:
    """The spatial axes of (N, C, *space)."""
    return tuple(range(2, x.ndim))
