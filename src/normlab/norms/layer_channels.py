"""Layer normalization over the channels of each position, as in ConvNeXt."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import Declaration
from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.layer import NormLayer, has_16_bits, in_float32, per_channel, widened
from normlab.norms.common.rows import has_fast_rows, row_sums
from normlab.norms.common.tracing import leaf


class _OverChannels(Derived):
    """y = γ z + β with z = (x - μ) r and r = (σ² + ε)^-½ of each position; for rows in one piece.

    torch's kernel wants channels in one piece, and two transposed copies cost more than the sums. With g = γ dy and
    means over channels: dx = r (g - mean(g) - z mean(g z)), dγ = Σ dy z, dβ = Σ dy.
    """

    @staticmethod
    def formula(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:  # pyright: ignore
        return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1)

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        r = centred.square().mean(1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, bias, mean, r)
        ctx.eps = eps
        return centred.mul_(r).mul_(per_channel(weight, x)).add_(per_channel(bias, x))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, bias, mean, r = ctx.saved_tensors
        if again():
            return *gradients(_OverChannels, (x, weight, bias), upstream, eps=ctx.eps), None
        z = (x - mean).mul_(r)
        d_bias, d_weight = (rows.sum(0) for rows in row_sums(upstream, z))
        g = upstream * per_channel(weight, x)
        of_g, of_gz = g.mean(1, keepdim=True), (g * z).mean(1, keepdim=True)
        return g.sub_(of_g).addcmul_(z, of_gz, value=-1).mul_(r), d_weight, d_bias, None


class ChannelsLayer(NormLayer):
    """See `LayerChannels`. Parameters weight and bias (C,)."""

    declaration = Declaration(frozenset({"channel"}))

    def __init__(self, num_features: int, dims: int, eps: float):
        super().__init__("layer_channels", num_features, dims, eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if has_16_bits(x) and x.device.type == "cpu":  # there torch's kernel adds up dγ and dβ in 16 bits
            return in_float32(self._normalize, x)
        return self._normalize(x)

    def _normalize(self, x: Tensor) -> Tensor:
        weight, bias = widened(self.weight, x), widened(self.bias, x)
        if x.numel() and has_fast_rows(x) and x.device.type == "cpu":
            y = derived(_OverChannels, x, weight, bias, self._eps)
        else:
            y = _OverChannels.formula(x, weight, bias, self._eps)
        return y.contiguous() if x.is_contiguous() else y


@dataclass(frozen=True)
class LayerChannels(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over the channels of each position; input (N, C, *space).

    On (N, C) it is `norm=layer`; with space `norm=layer` takes one statistic a sample, this one each position's. It is
    fastest in channels_last. Training and evaluation are the same; there is no state besides γ and β. Does not help
    with few channels, whose statistics say little.

    Liu et al., A ConvNet for the 2020s, 2022, arXiv:2201.03545.
    """

    eps: float = 1e-6

    @property
    def name(self) -> str:
        return "layer_channels"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return ChannelsLayer(num_features, dims, self.eps)
