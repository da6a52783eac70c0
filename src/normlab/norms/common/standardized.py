"""Weight standardization: layers whose weight is normalized, and the base of the options that use them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.base import Norm
from normlab.norms.common.tracing import leaf


def standardized(weight: Tensor, eps: float, gain: Tensor | None) -> Tensor:
    """ŵ = (w - mean) / √(var + ε) for each filter of `weight` (out, …), with the biased variance of its fan-in.

    A `gain` (out,) multiplies each filter by gain / √fan_in.
    """
    scale = None if gain is None else gain * weight[0].numel() ** -0.5
    last = not weight.is_contiguous()  # channels_last stays; a filter's moments do not depend on its layout
    w = weight.movedim(1, -1) if last else weight
    # Batch norm's kernel over (1, out, fan_in): a single operation for the forward pass and one for the backward
    w = F.batch_norm(w.reshape(1, len(w), -1), None, None, scale, None, True, 0.0, eps).view(w.shape)
    return w.movedim(-1, 1) if last else w


class StandardizedConv2d(nn.Conv2d):
    """`nn.Conv2d` with ŵ in place of w. Its state dict is that of `nn.Conv2d`; `scaled` adds `gain` (out_channels,)."""

    gain: Tensor | None

    def __init__(self, *args: Any, eps: float, scaled: bool, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eps = eps
        self.register_parameter("gain", nn.Parameter(torch.ones(self.out_channels)) if scaled else None)

    def reset_parameters(self) -> None:
        """Resets the parameters as torch does; the gain starts as 1."""
        super().reset_parameters()
        _reset_gain(self)

    def effective_weight(self) -> Tensor:
        return standardized(self.weight, self.eps, self.gain)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.effective_weight(), self.bias)


class StandardizedLinear(nn.Linear):
    """`nn.Linear` with ŵ in place of w. Its state dict is that of `nn.Linear`; `scaled` adds `gain` (out_features,)."""

    gain: Tensor | None

    def __init__(self, *args: Any, eps: float, scaled: bool, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eps = eps
        self.register_parameter("gain", nn.Parameter(torch.ones(self.out_features)) if scaled else None)

    def reset_parameters(self) -> None:
        """Resets the parameters as torch does; the gain starts as 1."""
        super().reset_parameters()
        _reset_gain(self)

    def effective_weight(self) -> Tensor:
        return standardized(self.weight, self.eps, self.gain)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


def _reset_gain(layer: nn.Module) -> None:
    gain = layer._parameters.get("gain")  # torch's constructor resets before the gain exists
    if gain is not None:
        nn.init.ones_(gain)


@dataclass(frozen=True)
class StandardizedNorm(Norm):
    """An option whose convolutions and dense layers standardize their weight, `scaled` ones with a gain.

    The papers standardize convolutions. A dense layer in front of a norm is the 1×1 convolution of a map of one
    position and is treated as that; a network's own `nn.Linear`, such as its classifier, stays plain.
    """

    weight_eps: float = 1e-6

    scaled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_eps <= 0:
            raise ValueError(f"norm={self.name}: weight_eps={self.weight_eps} is not above 0")

    def conv2d(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self._with_variance(StandardizedConv2d(*args, eps=self.weight_eps, scaled=self.scaled, **kwargs))

    def linear(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self._with_variance(StandardizedLinear(*args, eps=self.weight_eps, scaled=self.scaled, **kwargs))

    def _with_variance(self, layer: StandardizedConv2d | StandardizedLinear) -> nn.Module:
        if layer.weight[0].numel() < 2:
            raise ValueError(
                f"norm={self.name}: {layer} has one weight a filter, which has no variance; "
                "use a larger kernel or more inputs, or norm=group"
            )
        return layer
