"""A residual network for small images, for work that needs depth.  python train.py model=resnet model.depth=20"""

from collections.abc import Sequence

from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.checkpointing import checkpoint

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """norm → act → conv → norm → act → conv, plus the shortcut; the first convolution strides."""

    def __init__(self, norm: Norm, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = norm(in_channels, dims=2)
        self.relu1 = norm.act(nn.ReLU())  # not in place: under norm=none it would change the shortcut's x
        self.conv1 = norm.conv2d(in_channels, channels, 3, stride, padding=1, bias=norm.bias)
        self.bn2 = norm(channels, dims=2)
        self.relu2 = norm.act(nn.ReLU(inplace=True))
        self.conv2 = norm.conv2d(channels, channels, 3, padding=1, bias=norm.bias)
        same = stride == 1 and in_channels == channels
        self.shortcut = None if same else norm.conv2d(in_channels, channels, 1, stride, bias=norm.bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, channels, H/stride, W/stride)
        y = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return self.conv2(self.relu2(self.bn2(self.conv1(y)))) + shortcut


class ResNet(nn.Module):
    """ResNet-8, -14 or -20 for images (C, H, W), in the pre-activation form.

    Every norm is followed by its activation, so options that contain one fit too. The norm option decides whether
    convolutions have a bias. `checkpointing` computes each block once more in the backward pass instead of keeping its
    activations, which saves memory and gives the same weights bit for bit. Raises ValueError unless `depth` is 6n + 2,
    two layers beside three stages of n blocks.

    He et al., Identity Mappings in Deep Residual Networks, 2016, arXiv:1603.05027.
    """

    input_dims = 3

    def __init__(
        self,
        norm: Norm,
        input_shape: Sequence[int],
        out_features: int,
        depth: int = 8,
        checkpointing: bool = False,
    ):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"model.depth={depth}: expected 6n + 2, such as 8, 14 or 20")
        self.conv1 = norm.conv2d(input_shape[0], WIDTHS[0], 3, padding=1, bias=norm.bias)
        blocks, in_channels = [], WIDTHS[0]
        for stage, channels in enumerate(WIDTHS):
            for index in range((depth - 2) // 6):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(norm, in_channels, channels, stride))
                in_channels = channels
        self.blocks = nn.Sequential(*blocks)
        self.bn = norm(in_channels, dims=2)
        self.relu = norm.act(nn.ReLU(inplace=True))
        self.fc = nn.Linear(in_channels, out_features)
        self.checkpointing = checkpointing
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out_features)
        x = self.conv1(x)
        for block in self.blocks:
            x = checkpoint(block, x) if self.checkpointing else block(x)
        x = self.relu(self.bn(x))
        return self.fc(x.mean((2, 3)))
