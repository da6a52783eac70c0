"""Dense layers with a norm after each but the last.  python train.py model=mlp model.hidden=[64,128,256]"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm


class MLP(nn.Module):
    """fc → norm → ReLU for each width of `hidden`, then fc. Takes tables, and images flattened.

    With the default widths it is the network of lightning-hydra-template's MNIST example: 95,050 parameters there.
    Raises ValueError without a hidden layer.
    """

    def __init__(
        self,
        norm: Norm,
        input_shape: Sequence[int],
        out_features: int,
        hidden: Sequence[int] = (64, 128, 256),
        order: str = "norm_act",
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"model.hidden={list(hidden)}: expected the widths of at least one hidden layer")
        self.order = norm.order(order)
        layers: list[nn.Module] = []
        width = math.prod(input_shape)
        for features in hidden:
            after = [norm(features, dims=0), norm.act(nn.ReLU(inplace=True))]
            layers += [norm.linear(width, features), *(after if self.order == "norm_act" else reversed(after))]
            width = features
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(width, out_features)

    def forward(self, x: Tensor) -> Tensor:  # (N, *input_shape) -> (N, out_features)
        return self.fc(self.hidden(x.flatten(1)))
