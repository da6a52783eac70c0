"""Layer normalization over all features of a sample: torch's own layers."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.base import Norm


@dataclass(frozen=True)
class Layer(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over channels and space of each sample, γ and β for each channel.

    Input (N, C, *space). Training and evaluation are the same; there is no state besides γ and β. `nn.LayerNorm`
    on (N, C); with space the size of the map is not known beforehand, and the same formula is `nn.GroupNorm` of one
    group. Does not help where channels differ in scale and the next layer must tell.
    On the CPU in channels_last its variance is as inexact as `norm=group` says.

    Ba, Kiros & Hinton, Layer Normalization, 2016, arXiv:1607.06450.
    """

    eps: float = 1e-5
    affine: bool = True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        if dims == 0:
            return nn.LayerNorm(num_features, self.eps, self.affine)
        return nn.GroupNorm(1, num_features, self.eps, self.affine)
