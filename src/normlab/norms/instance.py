"""Instance normalization: torch's own layers."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.base import Norm

LAYERS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass(frozen=True)
class Instance(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over space of each channel of each sample.

    Input (N, C, *space) with at least one spatial dimension. Training and evaluation are the same; there is no state
    besides γ and β. Does not help where a channel's mean carries the class, as contrast or brightness may.

    Ulyanov, Vedaldi & Lempitsky, Instance Normalization, 2016, arXiv:1607.08022.
    """

    eps: float = 1e-5
    affine: bool = True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        if dims == 0:
            raise ValueError(
                "norm=instance takes its statistics over space, and this network has a norm on a dense layer, "
                "without space; choose another norm or a network whose norms all follow convolutions"
            )
        return LAYERS[dims - 1](num_features, self.eps, affine=self.affine)
