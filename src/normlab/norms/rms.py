"""Root mean square normalization over the channels of each position."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import Declaration
from normlab.norms.common.derived import Derived, again, derived, gradients
from normlab.norms.common.layer import NormLayer, in_float32, per_channel
from normlab.norms.common.tracing import leaf


class _RootMeanSquare(Derived):
    """y = γ x r with r = (mean_channels x² + ε)^-½ of each position.

    With g = γ dy: dx = r g - x r³ Σ_channels g x / C, dγ = Σ dy x r. torch's own composes it of many more passes.
    """

    @staticmethod
    def formula(x: Tensor, weight: Tensor, eps: float) -> Tensor:  # pyright: ignore
        return per_channel(weight, x) * x * (x.square().mean(1, keepdim=True) + eps).rsqrt()

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = x.square().mean(1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        ctx.eps = eps
        return (x * r).mul_(per_channel(weight, x))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, weight, r = ctx.saved_tensors
        if again():
            return *gradients(_RootMeanSquare, (x, weight), upstream, eps=ctx.eps), None
        others = (0, *range(2, x.ndim))
        product = upstream * x
        g = upstream * per_channel(weight, x)
        pull = (product * per_channel(weight, x)).sum(1, keepdim=True).mul_(r**3).div_(x.shape[1])
        d_x = g.mul_(r).addcmul_(x, pull, value=-1)
        return d_x, product.mul_(r).sum(others), None


class RMSLayer(NormLayer):
    """See `RMS`. One parameter, weight (C,)."""

    declaration = Declaration(frozenset({"channel"}), centred=False)

    def __init__(self, num_features: int, dims: int, eps: float):
        super().__init__("rms", num_features, dims, eps)
        self.weight = nn.Parameter(torch.ones(num_features))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        return in_float32(lambda x: derived(_RootMeanSquare, x, self.weight, self._eps), x)


@dataclass(frozen=True)
class RMS(Norm):
    """y = γ x / √(mean_channels x² + ε) at each position of each sample; input (N, C, *space), 0 to 3 dimensions.

    No mean is taken off and nothing is shifted, so the layer before keeps its bias. Training and evaluation are the
    same; there is no state besides γ. Does not help where features need centring, as after a ReLU.

    Zhang & Sennrich, Root Mean Square Layer Normalization, 2019, arXiv:1910.07467.
    """

    eps: float = 1e-6

    @property
    def bias(self) -> bool:
        return True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return RMSLayer(num_features, dims, self.eps)
