"""The network of airbench, which begins with whitened patches.  python train.py model=airbench data=cifar10"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.base import Norm

PATCH = 2  # pixels of a side of the patches that are whitened
SCALE = 1 / 9  # of the outputs, so that the first losses are small
CHUNK = 256  # images whose patches are taken at a time
FLAT = 1e-6  # of the largest variance: patches do not vary in a direction where theirs is smaller


class ConvGroup(nn.Module):
    """conv1 → pool → norm1 → GELU → conv2 → norm2 → GELU. The convolutions begin as the identity of their inputs.

    pools: whether the pool halves the images, which those of a single pixel cannot be.
    """

    def __init__(self, norm: Norm, in_channels: int, channels: int, pools: bool):
        super().__init__()
        # Made before conv1, since the pool stands between them: norm=cross_iteration takes what was made last for the
        # layer right in front of the norm.
        self.norm1 = norm(channels, dims=2)
        self.conv1 = norm.conv2d(in_channels, channels, 3, padding=1, bias=norm.bias)
        self.pool = nn.MaxPool2d(2) if pools else None
        self.act1 = norm.act(nn.GELU())
        self.conv2 = norm.conv2d(channels, channels, 3, padding=1, bias=norm.bias)
        self.norm2 = norm(channels, dims=2)
        self.act2 = norm.act(nn.GELU())
        for conv in (self.conv1, self.conv2):
            _begin_as_identity(conv)

    def forward(self, x: Tensor) -> Tensor:  # (N, in_channels, H, W) -> (N, channels, H // 2, W // 2)
        x = self.conv1(x)
        if self.pool is not None:
            x = self.pool(x)
        x = self.act1(self.norm1(x))
        return self.act2(self.norm2(self.conv2(x)))


class AirBench(nn.Module):
    """Whitening → GELU → three groups of `width`, 4 and 4 times as many channels → maximum over space → fc, over 9.

    The first layer's filters are `whitening_filters` of the training images and are not trained, but their bias is.
    They are saved with the weights; without `training_samples` (N, C, H, W), which a network that loads its weights
    does not need, they are as torch makes them. Convolutions have a bias where the norm does not shift every channel.
    1,972,792 parameters on 3×32×32 and ten classes with batch norm, of which the recipe (`experiment=airbench`) trains
    neither γ nor the filters. Takes images of at least 2×2 pixels; raises ValueError for smaller ones.

    Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv:2404.00498.
    """

    input_dims = 3

    def __init__(
        self,
        norm: Norm,
        input_shape: Sequence[int],
        out_features: int,
        width: int = 64,
        training_samples: Tensor | None = None,
    ):
        super().__init__()
        c, h, w = input_shape
        if min(h, w) < PATCH:
            raise ValueError(
                f"model=airbench whitens patches of {PATCH}×{PATCH} pixels, and the images have {w}×{h}: set data.size="
            )
        filters = 2 * c * PATCH**2
        self.whitening = nn.Conv2d(c, filters, PATCH)
        if training_samples is not None:
            self.whitening.weight.data = whitening_filters(training_samples).to(self.whitening.weight)
        self.whitening.weight.requires_grad_(False)
        self.act = nn.GELU()
        widths = (filters, width, 4 * width, 4 * width)
        side = min(h, w) - PATCH + 1  # of the images that the first group gets
        groups = (ConvGroup(norm, *pair, pools=side >> place > 1) for place, pair in enumerate(pairwise(widths)))
        self.groups = nn.Sequential(*groups)
        self.fc = nn.Linear(4 * width, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out_features)
        x = self.groups(self.act(self.whitening(x)))
        return self.fc(x.amax((2, 3))) * SCALE


@torch.no_grad()
def whitening_filters(images: Tensor, size: int = PATCH, eps: float = 5e-4) -> Tensor:
    """Filters whose values over patches of the images are uncorrelated and of variance 1, and their negatives.

    They are the eigenvectors v of the covariance of all patches, C·size² numbers each, times 1 / √(λ + eps) with their
    eigenvalues λ, the largest first. Where patches do not vary, as those of grey images in three channels in eight of
    their twelve directions, the other filters stand once more, in turn: a channel that is constant would let the norms
    behind it blow up gradients. images: (N, C, H, W). Returns (2 C·size², C, size, size) float64.
    """
    length = images.shape[1] * size**2
    total, squares, count = torch.zeros(length).double(), torch.zeros(length, length).double(), 0
    for chunk in images.split(CHUNK):
        patches = F.unfold(chunk.float(), size).transpose(0, 1).flatten(1).double()  # (C·size², patches)
        total, squares, count = total + patches.sum(1), squares + patches @ patches.T, count + patches.shape[1]
    mean = total / count
    values, vectors = torch.linalg.eigh(squares / count - torch.outer(mean, mean))
    filters = (vectors / (values.clamp(min=0) + eps).sqrt()).T.flip(0).reshape(length, -1, size, size)
    varying = max(1, int((values > FLAT * values.max()).sum()))
    filters = filters[torch.arange(length) % varying]
    return torch.cat([filters, -filters])


@torch.no_grad()
def _begin_as_identity(conv: nn.Module) -> None:
    """Lets the first filters of a convolution each give one of its inputs; the others stay random."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.dirac_(conv.weight[: conv.in_channels])
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
