"""Layer normalization over the channels of each position, as in ConvNeXt."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.base import Norm
from normlab.norms.declaration import Declaration
from normlab.norms.own import OwnLayer


class ChannelsLayer(OwnLayer):
    """See `LayerChannels`. Parameters weight and bias (C,)."""

    declaration = Declaration(frozenset({"channel"}))

    def __init__(self, num_features: int, dims: int, eps: float):
        super().__init__("layer_channels", num_features, dims, eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        y = F.layer_norm(x.movedim(1, -1), (self.num_features,), self.weight, self.bias, self.eps).movedim(-1, 1)
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
