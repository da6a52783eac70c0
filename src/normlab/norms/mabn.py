"""Moving average batch normalization (MABN): batch norm for small batches, with averages forward and backward."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from normlab.norms.common.base import Norm
from normlab.norms.common.checkpointing import check_first_pass
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.layer import NormLayer
from normlab.norms.common.moments import piece_moments, piece_sums
from normlab.norms.common.population import Population
from normlab.norms.common.rows import affine, of_rows
from normlab.norms.common.tracing import check_not_exported, kept, leaf


class _ByMovingAverage(torch.autograd.Function):
    """y = γ r x / σ + β with constants r and σ; backward takes the term of σ² as an average over batches, too.

    With g = γ r dy and z = x / σ: dγ = Σ r dy z, dβ = Σ dy, dx = (g - z a) / σ, where a is the average over the last
    batches of mean(g z), which `products` keeps. Were σ the batch's own and a this batch's alone, it is the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        r: Tensor,
        rstd: Tensor,
        products: Tensor,
        backwards: Tensor,
        average_from: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, r, rstd)
        ctx.past = products, backwards, average_from  # buffers, which backward moves
        return affine(x, (weight * r * rstd).unsqueeze(0), bias.unsqueeze(0)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, r, rstd = ctx.saved_tensors
        d_bias, by_x = (
            sums[0] for sums in piece_sums(upstream, x, [x.shape[0]], torch.zeros_like(weight).unsqueeze(0))
        )
        values = x.numel() // x.shape[1]
        a = average(weight * r * rstd * by_x / values, *ctx.past)
        of_dy, of_x = (of_rows(t.unsqueeze(0), x) for t in (weight * r * rstd, -a * rstd.square()))
        d_x = (upstream * of_dy).addcmul_(x, of_x)
        return d_x.to(x.dtype), r * rstd * by_x, d_bias, None, None, None, None, None


@torch.no_grad()
def average(newest: Tensor, ring: Tensor, seen: Tensor, average_from: int) -> Tensor:
    """Counts `newest` (C,) in `seen` and puts it in the place of the oldest of `ring` (window, C); the mean of those.

    It is `newest` alone up to as many as the window holds, and before number `average_from`.
    """
    seen.add_(1)
    ring.copy_(torch.cat([newest.unsqueeze(0).to(ring), ring[:-1]]))
    return torch.where((seen > ring.shape[0]) & (seen >= average_from), ring.mean(0), newest)


class CentredConv2d(nn.Conv2d):
    """`nn.Conv2d` that takes each filter's mean off its weight; the same state."""

    def effective_weight(self) -> Tensor:
        return self.weight - self.weight.mean((1, 2, 3), keepdim=True)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.effective_weight(), self.bias)


class CentredLinear(nn.Linear):
    """`nn.Linear` that takes each row's mean off its weight; the same state."""

    def effective_weight(self) -> Tensor:
        return self.weight - self.weight.mean(1, keepdim=True)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


class MABNLayer(NormLayer):
    """See `MABN`. Parameters weight, bias; buffers running_square (C,), squares, products (window, C) and counters.

    `squares` has χ² of the last `num_batches_tracked` forward passes in training, and `products` the backward term of
    the last `num_backwards_tracked` backward passes, as a forward pass may have none.
    The gradient of training is no derivative: it cannot be differentiated again, and torch.export is refused there.
    """

    declaration = Declaration(BATCH, running_stats=True, centred=False, foldable=True, drop_in=False)
    running_square: Tensor
    squares: Tensor
    products: Tensor
    num_batches_tracked: Tensor
    num_backwards_tracked: Tensor

    def __init__(self, num_features: int, dims: int, option: "MABN"):
        super().__init__("mabn", num_features, dims, option.eps)
        self.option = option
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_square", torch.ones(num_features))
        self.register_buffer("squares", torch.zeros(option.window, num_features))
        self.register_buffer("products", torch.zeros(option.window, num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("num_backwards_tracked", torch.tensor(0))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            scale = self.weight * (self.running_square + self._eps).rsqrt()
            return affine(x, scale.unsqueeze(0), self.bias.unsqueeze(0)).to(x.dtype)
        self.check_not_empty(x)
        check_first_pass(self.name)
        check_not_exported(self.name)
        if x.numel() // self.num_features < 2:
            raise ValueError(f"norm=mabn: Expected more than 1 value per channel, got {tuple(x.shape)}")
        r, rstd = self._follow(x.detach())
        past = self.products, self.num_backwards_tracked, self.option.average_from
        return _ByMovingAverage.apply(x, self.weight, self.bias, r, rstd, *past)  # pyright: ignore

    def take_over(self, population: Population, of_batch: bool) -> None:
        """See `normlab.norms.common.population.take_over`."""
        self.running_square.copy_(population.biased_variance + population.mean.square())

    @torch.no_grad()
    def _follow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the batch into the averages; r and 1 / σ (C,)."""
        mean, var = piece_moments(x, [x.shape[0]])
        newest = (var + mean.square())[0]
        square = average(newest, self.squares, self.num_batches_tracked, self.option.average_from)
        r = ((square + self._eps) / (self.running_square + self._eps)).sqrt()
        bounded = r.clamp(1 / self.option.r_max, self.option.r_max)
        r = torch.where(self.num_batches_tracked > self.option.start, bounded, 1)
        self.running_square.lerp_(square.to(self.running_square), self.option.momentum)
        return kept(r), kept((square + self._eps).rsqrt())


@dataclass(frozen=True)
class MABN(Norm):
    """y = γ r x / √(χ² + ε) + β with χ² the mean of x² over batch and space, averaged over `window` batches; MABN.

    Input (N, C, *space). χ² is the batch's own up to batch `window`, and before batch `average_from`. The mean is not
    taken off; the layer before has each filter's mean taken off its weight instead. r = √((χ² + ε) / (χ²_run + ε)),
    held constant in the gradient, is kept within 1 / `r_max` and `r_max`, and at 1 up to batch `start`. Backward, the
    term of χ² is an average over the last batches too, begun alike, so that the gradient is then not that of one
    batch's formula. Training moves χ²_run by `momentum`; evaluation is y = γ x / √(χ²_run + ε) + β. All numbers are
    those of the authors' code. State: γ, β, χ²_run and the last batches' values, forward and backward. Helps where
    batches are of two to eight samples; does not help where they are large, nor early in training, while averages lag
    behind the weights.

    Yan et al., Towards Stabilizing Batch Statistics in Backward Propagation of Batch Normalization, 2020,
    arXiv:2001.06838.
    """

    window: int = 16
    r_max: float = 5.0
    start: int = 1000
    average_from: int = 100
    eps: float = 1e-5
    momentum: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"norm=mabn: window={self.window} holds no batch")
        if not 1 <= self.r_max < math.inf:
            raise ValueError(f"norm=mabn: r_max={self.r_max} is no finite number of at least 1")

    def conv2d(self, *args: Any, **kwargs: Any) -> nn.Module:
        return CentredConv2d(*args, **kwargs)

    def linear(self, *args: Any, **kwargs: Any) -> nn.Module:
        return CentredLinear(*args, **kwargs)

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return MABNLayer(num_features, dims, self)
