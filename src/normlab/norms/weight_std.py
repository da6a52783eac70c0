"""Weight standardization with group normalization."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.declaration import GROUP_NORM, SAMPLE, Declaration
from normlab.norms.common.standardized import StandardizedNorm
from normlab.norms.group import number_of_groups


class WeightStdLayer(nn.GroupNorm):
    """See `WeightStd`. Torch's group norm, which declares that without its convolutions it is another method."""

    def __init__(self, num_groups: int, num_features: int, eps: float):
        super().__init__(num_groups, num_features, eps)
        self.declaration = Declaration(SAMPLE, groups=num_groups, drop_in=False, contiguous_on=GROUP_NORM)


@dataclass(frozen=True)
class WeightStd(StandardizedNorm):
    """y = γ (x - μ) / √(σ² + ε) + β behind layers of ŵ = (w - μ_w) / √(σ²_w + ε_w) with the moments of each filter.

    The norm is group norm: μ, σ² over the channels of a group and space of each sample; input (N, C, *space), 0 to 3
    dimensions; `num_groups=None` takes its rule. μ_w, σ²_w (biased) are taken over the fan-in of each output channel.
    Convolutions and dense layers that the option makes are standardized. Training and evaluation are the same; there
    is no state besides γ, β and the layers' own w and bias, so state dicts of `norm=group` load. Helps group norm with
    micro-batches. Does not help where large batches allow batch norm; and as the scale of w has no effect, weight decay
    acts on the effective learning rate only.
    Raises ValueError for a layer with one weight a filter.

    Qiao, Wang, Liu, Shen & Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    2019, arXiv:1903.10520.
    """

    num_groups: int | None = None
    eps: float = 1e-5

    @property
    def name(self) -> str:
        return "weight_std"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return WeightStdLayer(number_of_groups(self.num_groups, num_features), num_features, self.eps)
