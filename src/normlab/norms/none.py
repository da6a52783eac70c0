"""No normalization, the control of every comparison."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.base import Norm


@dataclass(frozen=True)
class NoNorm(Norm):
    """y = x. The layer before keeps its bias if it has one; in `model=torchvision` and `timm` most have none.

    Does not help deep networks without shortcuts at high learning rates.
    """

    @property
    def name(self) -> str:
        return "none"

    @property
    def bias(self) -> bool:
        return True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return nn.Identity()
