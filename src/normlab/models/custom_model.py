"""The tutorial's `CustomModel`: a dense network with a norm on its output too.  python train.py model=custom_model"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm


class CustomModel(nn.Module):
    """fc1 → bn1 → activation → fc2 → bn2. Takes tables, and images flattened.

    `activation` is the name of a class of `torch.nn` that needs no arguments, such as ReLU, GELU or Tanh; the
    tutorial allows any. Raises ValueError for another name.
    """

    def __init__(
        self,
        norm: Norm,
        input_shape: Sequence[int],
        out_features: int,
        hidden_units: int = 64,
        activation: str = "ReLU",
        order: str = "norm_act",
    ):
        super().__init__()
        self.fc1 = norm.linear(math.prod(input_shape), hidden_units)
        self.bn1 = norm(hidden_units, dims=0)
        self.activation = norm.act(named_activation(activation))
        self.fc2 = norm.linear(hidden_units, out_features)
        self.bn2 = norm(out_features, dims=0, act=False)
        self.order = norm.order(order)

    def forward(self, x: Tensor) -> Tensor:  # (N, *input_shape) -> (N, out_features)
        x = self.fc1(x.flatten(1))
        x = self.activation(self.bn1(x)) if self.order == "norm_act" else self.bn1(self.activation(x))
        return self.bn2(self.fc2(x))


def named_activation(name: str) -> nn.Module:
    kind = getattr(nn.modules.activation, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"model.activation={name}: torch.nn has no such activation; try ReLU, GELU, SiLU or Tanh")
    return kind()
