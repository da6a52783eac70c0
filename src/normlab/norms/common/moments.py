"""Moments of pieces of a batch, and the affine maps that they end in: what most normalizations are made of.

    way, mean, var = moments(x, sizes)
    scale = weight * (var + eps).rsqrt()
    y = affine_map(x, way, sizes, mean, scale, bias)

is batch norm of consecutive pieces of `sizes` samples, gradients included; between the two calls a norm may do with the
moments what it likes, as they are small. Taken apart, normalised and put together again, a batch would be read and
written more often, and plain formulas would make a pass over memory of every operation.

The gradient of `x` is a sum whose terms cancel. It goes from `affine_map` to `moments` along `way`, in 32 bits at
least, and is rounded to the type of `x` once, at the end.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.rows import affine, has_fast_rows, of_rows, row_moments, row_sums, space_axes

Sizes = (
    Sequence[int] | None
)  # samples of each piece, one after the other; None: every sample is a piece, its rows apart


def moments(x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient's way back to `x` (N, C, *space), for `affine_map`; and mean and biased variance (pieces, C).

    All have at least 32 bits. The way has the shape of `x`, but takes no memory.
    Raises ValueError for a piece with one value per channel. An empty batch has zeros for moments.
    """
    if sizes is not None and x.numel() and min(sizes) * math.prod(x.shape[2:]) < 2:
        raise ValueError(f"Expected more than 1 value per channel, got an input of shape {tuple(x.shape)}")
    return derived(_Moments, x, sizes)


def whole_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gives what `moments` gives of the whole batch, and allows one value per channel."""
    return derived(_Moments, x, [x.shape[0]])


def affine_map(x: Tensor, way: Tensor, sizes: Sizes, centre: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(x - centre) scale + shift, each (pieces, C) or (1, C), in the type of `x`, whose `way` comes from `moments`."""
    shape = (x.shape[0] if sizes is None else len(sizes), x.shape[1])
    return derived(_AffineMap, x, way, centre.expand(shape), scale.expand(shape), shift.expand(shape), sizes)


def unbiased(var: Tensor, x: Tensor, sizes: Sequence[int], batches: Tensor | int = 1) -> Tensor:
    """The unbiased variance (pieces, C), which running statistics take, from the biased one.

    `var` is that of a piece, or of so many `batches` with pieces of these sizes taken together.
    """
    values = batches * _values(x, sizes, var)
    return var * (values / (values - 1))


def shares(x: Tensor, sizes: Sequence[int], like: Tensor) -> Tensor:
    """Each piece's share of the samples, (pieces, 1); zeros for an empty batch."""
    return _samples(sizes, like) / max(x.shape[0], 1)


class _Moments(Derived):
    """dx = (dμ + 2 dσ² (x - μ)) / M beside what the affine map says."""

    @staticmethod
    def formula(x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
        way = x.to(torch.promote_types(x.dtype, torch.float32))
        if sizes is None:
            axes = space_axes(x)
            return way, *((way.mean(axes), way.var(axes, correction=0)) if axes else (way, torch.zeros_like(way)))
        axes, pieces = (0, *space_axes(x)), _pieces(way, sizes)
        mean = torch.stack([piece.mean(axes) for piece in pieces])
        return way, mean, torch.stack([piece.var(axes, correction=0) for piece in pieces])

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = piece_moments(x, sizes)
        ctx.save_for_backward(x, mean)
        ctx.sizes = sizes
        return mean.new_zeros(()).expand(x.shape), mean, var

    @staticmethod
    def backward(ctx: Any, of_x: Tensor, of_mean: Tensor, of_var: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, mean = ctx.saved_tensors
        if again():
            return *gradients(_Moments, (x,), of_x, of_mean, of_var, sizes=ctx.sizes), None
        values = _values(x, ctx.sizes, mean)
        slope = 2 * of_var / values
        shift = of_mean / values - slope * mean
        slope, shift = _each_row(ctx.sizes, slope, shift)
        # In place: _AffineMap made it for this use alone, and another tensor of this size costs more than the sums.
        return of_x.addcmul_(x, of_rows(slope, x)).add_(of_rows(shift, x)).to(x.dtype), None


class _AffineMap(Derived):
    """dx = scale dy, dcentre = -scale Σ dy, dscale = Σ dy (x - centre), dshift = Σ dy; dx goes back along the way."""

    @staticmethod
    def formula(x: Tensor, way: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, sizes: Sizes) -> Tensor:
        centre, scale, shift = (of_rows(values, x) for values in _each_row(sizes, centre, scale, shift))
        return ((x - centre) * scale + shift).to(x.dtype)

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, sizes: Sizes) -> Tensor:
        ctx.save_for_backward(x, way, centre, scale, shift)
        ctx.sizes = sizes
        # centre · scale is rounded as x · scale is, so that a constant channel gives exactly `shift`.
        return affine(x, *_each_row(sizes, scale, shift - centre * scale)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, way, centre, scale, shift = ctx.saved_tensors
        if again():
            inputs = (x.to(way.dtype), way, centre, scale, shift)
            of_x, _, *others = gradients(_AffineMap, inputs, upstream.to(way.dtype), sizes=ctx.sizes)
            return None, of_x, *others, None
        of_shift, of_scale = piece_sums(upstream, x, ctx.sizes, centre)
        (rows,) = _each_row(ctx.sizes, scale)
        return None, upstream * of_rows(rows, x), -scale * of_shift, of_scale, of_shift, None


def _values(x: Tensor, sizes: Sizes, like: Tensor) -> Tensor | int:
    """The number of values that each moment is taken over: (pieces, 1), or one number for all."""
    space = math.prod(x.shape[2:])
    if sizes is None:
        return space
    return space * (sizes[0] if len(sizes) == 1 else _samples(sizes, like))


def _samples(sizes: Sequence[int], like: Tensor) -> Tensor:
    """`sizes` as (pieces, 1), filled on the device: copying a list from the host would make the device wait."""
    return torch.cat([like.new_full((len(list(run)), 1), size) for size, run in groupby(sizes)])


def _each_row(sizes: Sizes, *of_pieces: Tensor) -> list[Tensor]:
    """(pieces, C) repeated for the samples of each piece, or unchanged where it broadcasts."""
    if sizes is None or len(sizes) == 1:
        return list(of_pieces)
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    lengths = [length for _, length in runs]
    return [
        torch.cat([piece.repeat_interleave(size, 0) for piece, (size, _) in zip(t.split(lengths), runs, strict=True)])
        for t in of_pieces
    ]


def _pieces(x: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return [x] if len(sizes) == 1 else x.split(list(sizes))


def _in_one(x: Tensor, sizes: Sequence[int]) -> Tensor | None:
    """(pieces, samples, C, *space) where all pieces hold as many samples, so that one call serves all; else None."""
    return x.unflatten(0, (len(sizes), sizes[0])) if all(size == sizes[0] for size in sizes) else None


def _mean_of_pieces(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    together = _in_one(rows, sizes)
    return torch.stack([piece.mean(0) for piece in _pieces(rows, sizes)]) if together is None else together.mean(1)


def _sum_of_pieces(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    together = _in_one(rows, sizes)
    return torch.stack([piece.sum(0) for piece in _pieces(rows, sizes)]) if together is None else together.sum(1)


def piece_moments(x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (pieces, C), without a gradient; zeros for an empty batch."""
    if not x.numel():
        pieces = x.shape[0] if sizes is None else len(sizes)
        zeros = x.new_zeros(pieces, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        return zeros, zeros.clone()
    return _by_rows(x, sizes) if sizes is None or has_fast_rows(x) else _by_pieces(x, sizes)


def _by_rows(x: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    mean, var = row_moments(x)
    if sizes is None:
        return mean, var
    of_pieces = _mean_of_pieces(mean, sizes)
    (around,) = _each_row(sizes, of_pieces)
    return of_pieces, _mean_of_pieces(var + (mean - around).square_(), sizes)


def _by_pieces(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    pieces = _pieces(x, sizes)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        pairs = [
            torch.batch_norm_update_stats(piece, None, None, 0.0) for piece in pieces
        ]  # the training kernel computes them alike
        mean, var = (torch.stack(list(of_pieces)) for of_pieces in zip(*pairs, strict=True))
    elif (together := _in_one(x, sizes)) is not None:
        var, mean = torch.var_mean(together, (1, *(axis + 1 for axis in space_axes(x))), correction=0)
    else:
        pairs = [torch.var_mean(piece, (0, *space_axes(x)), correction=0) for piece in pieces]
        var, mean = (torch.stack(list(of_pieces)) for of_pieces in zip(*pairs, strict=True))
    return mean, var


def piece_sums(g: Tensor, x: Tensor, sizes: Sizes, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g and Σ g (x - centre) of each piece, (pieces, C) each, without a gradient."""
    if not x.numel():  # torch's kernels do not take an empty batch
        return torch.zeros_like(centre), torch.zeros_like(centre)
    compiled = torch.compiler.is_compiling()  # where a backward pass that asks for a layout gets a copied gradient
    if sizes is None or compiled or (has_fast_rows(x) and g.is_contiguous()):
        of_g, of_products = row_sums(g, x)
        if sizes is not None:
            of_g, of_products = _sum_of_pieces(of_g, sizes), _sum_of_pieces(of_products, sizes)
        return of_g, of_products - centre * of_g
    x, g = _alike(x, g)
    one = torch.ones_like(centre[0])
    pairs = [  # the gradients of β and γ in torch's batch norm, if its μ were the centre and its σ and γ were 1
        torch.ops.aten.native_batch_norm_backward(
            g_piece, piece, one, None, None, around, one, True, 0.0, [False, True, True]
        )[1:]
        for g_piece, piece, around in zip(_pieces(g, sizes), _pieces(x, sizes), centre, strict=True)
    ]
    return torch.stack([of_g for _, of_g in pairs]), torch.stack([of_products for of_products, _ in pairs])


def _alike(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in one layout: with two layouts torch's kernel gives wrong sums where sizes of 1 fit both."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    keeps = last is not None and x.is_contiguous(memory_format=last)
    layout = last if keeps and last is not None else torch.contiguous_format
    return x.contiguous(memory_format=layout), g.contiguous(memory_format=layout)
