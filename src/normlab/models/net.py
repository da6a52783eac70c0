"""The tutorial's `Net`: two dense layers with a norm between them.  python train.py model=net data=wine"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm


class Net(nn.Module):
    """fc1 → bn1 → ReLU → fc2. Takes tables, and images flattened. 470 parameters on ten features and ten outputs."""

    def __init__(self, norm: Norm, input_shape: Sequence[int], out_features: int, order: str = "norm_act"):
        super().__init__()
        self.fc1 = norm.linear(math.prod(input_shape), 20)
        self.bn1 = norm(20, dims=0)
        self.relu = norm.act(nn.ReLU(inplace=True))
        self.fc2 = nn.Linear(20, out_features)
        self.order = norm.order(order)

    def forward(self, x: Tensor) -> Tensor:  # (N, *input_shape) -> (N, out_features)
        x = self.fc1(x.flatten(1))
        x = self.relu(self.bn1(x)) if self.order == "norm_act" else self.bn1(self.relu(x))
        return self.fc2(x)
