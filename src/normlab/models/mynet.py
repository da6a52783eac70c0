"""The tutorial's `MyNet`: one convolution, one norm, one dense layer.  python train.py model=mynet"""

from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm


class MyNet(nn.Module):
    """conv1 → bn1 → ReLU → flatten → fc1 for images (C, H, W). 657,290 parameters on 3×32×32 and ten classes."""

    input_dims = 3

    def __init__(self, norm: Norm, input_shape: Sequence[int], out_features: int, order: str = "norm_act"):
        super().__init__()
        c, h, w = input_shape
        self.conv1 = norm.conv2d(c, 64, kernel_size=3, stride=1, padding=1)
        self.bn1 = norm(64, dims=2)
        self.relu = norm.act(nn.ReLU(inplace=True))
        self.fc1 = nn.Linear(64 * h * w, out_features)
        self.order = norm.order(order)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out_features)
        x = self.conv1(x)
        x = self.relu(self.bn1(x)) if self.order == "norm_act" else self.bn1(self.relu(x))
        return self.fc1(x.flatten(1))
