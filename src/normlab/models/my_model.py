"""The tutorial's `MyModel`: a convolution, pooling, and a norm on the output.  python train.py model=my_model"""

from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm


class MyModel(nn.Module):
    """conv1 → bn1 → ReLU → global average pooling → fc1 → bn2 for images (C, H, W). 2,590 parameters for ten classes.

    The tutorial leaves out how its (N, 64, 30, 30) becomes (N, 64); averaging over space is our answer.
    """

    input_dims = 3

    def __init__(self, norm: Norm, input_shape: Sequence[int], out_features: int, order: str = "norm_act"):
        super().__init__()
        self.conv1 = norm.conv2d(input_shape[0], 64, kernel_size=3)
        self.bn1 = norm(64, dims=2)
        self.relu = norm.act(nn.ReLU(inplace=True))
        self.fc1 = norm.linear(64, out_features)
        self.bn2 = norm(out_features, dims=0, act=False)
        self.order = norm.order(order)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out_features)
        x = self.conv1(x)
        x = self.relu(self.bn1(x)) if self.order == "norm_act" else self.bn1(self.relu(x))
        x = x.mean((2, 3))  # (N, 64)
        return self.bn2(self.fc1(x))
