"""Random changes of training images, each image its own, made on whole batches at once.

What happens to a sample depends on (seed, epoch, sample) alone. Images (B, C, H, W) are uint8 or float; `index` holds
the samples' places in the training part.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from normlab.data.common.batches import Augment, Draws


class Crop:
    """Pads each side with `padding` black pixels and cuts an image of the old size out of that, at a random place.

    reflect: the pixels are those inside, mirrored at the edge, of which there must be more than `padding` a side.
    He et al., Deep Residual Learning, 2015, arXiv:1512.03385, section 4.2.
    """

    def __init__(self, samples: int, padding: int, seed: int, reflect: bool = False):
        self.padding, self.reflect = padding, reflect
        corners = 2 * padding + 1
        self.corners = Draws("crop", seed, lambda random: torch.randint(corners, (samples, 2), generator=random))

    def __call__(self, x: Tensor, index: Tensor, epoch: int) -> Tensor:
        batch, channels, height, width = x.shape
        padded = _reflected(x, self.padding) if self.reflect else F.pad(x, 4 * [self.padding])
        corners = 2 * self.padding + 1
        image, channel, row, column = padded.stride()
        windows = padded.as_strided(  # every crop of every image; nothing is copied
            (batch, channels, corners, corners, height, width), (image, channel, row, column, row, column)
        )
        top, left = self.corners(index, epoch).to(x.device).T
        return windows[torch.arange(batch, device=x.device), :, top, left]


class Flip:
    """Mirrors each image with probability 1/2, left and right exchanged.

    alternating: that is drawn for the first epoch alone, and each later epoch shows the other side of an image than the
    epoch before it, so that any two epochs in a row show both. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU,
    2024, arXiv:2404.00498, section 3.6.
    """

    def __init__(self, samples: int, seed: int, alternating: bool = False):
        self.alternating = alternating
        self.drawn = Draws("flip", seed, lambda random: torch.rand(samples, generator=random) < 0.5)

    def __call__(self, x: Tensor, index: Tensor, epoch: int) -> Tensor:
        flipped = self.flipped(index, epoch).to(x.device)
        return torch.where(flipped[:, None, None, None], x.flip(-1), x)

    def flipped(self, index: Tensor, epoch: int) -> Tensor:
        """Which of the samples at `index` are mirrored in this epoch."""
        if not self.alternating:
            return self.drawn(index, epoch)
        return self.drawn(index, 0) ^ (epoch % 2 == 1)


class Cutout:
    """Covers a square of `size` pixels around a random pixel of each image, as far as it lies inside, with `value`.

    DeVries & Taylor, 2017, arXiv:1708.04552. Little is gained beside mixup or cutmix.
    """

    def __init__(self, samples: int, size: int, shape: Sequence[int], value: Tensor, seed: int):
        """shape: (height, width). value: (C,)."""
        self.size, self.value = size, _Constant(value)
        self.centres = Draws("cutout", seed, lambda random: _pixels(samples, shape, random))

    def __call__(self, x: Tensor, index: Tensor, epoch: int) -> Tensor:
        start = self.centres(index, epoch).to(x.device) - self.size // 2
        covered = _boxes(start, start + self.size, x.shape[2:])
        return torch.where(covered, self.value(x)[:, None, None], x)


class Mixup:
    """x = λ x + (1 - λ) x', y = λ y + (1 - λ) y' with the other sample of a pair; λ ~ Beta(α, α), each sample its own.

    Zhang et al., 2017, arXiv:1710.09412.
    """

    def __init__(self, samples: int, classes: int, alpha: float, seed: int):
        self.classes = classes
        self.shares = Draws("mixup", seed, lambda random: _beta(samples, alpha, random))

    def __call__(self, x: Tensor, y: Tensor, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        share, other = self.shares(index, epoch).to(x.device), _others(x)
        mixed = torch.lerp(x[other], x, share[:, None, None, None].to(x.dtype))
        return mixed, _mixed_labels(y.to(x.device), other, share, self.classes)


class Cutmix:
    """Puts a box of the other sample of a pair into each image; y is mixed by area.

    The box has the image's proportions, the area (1 - λ) of it and a random centre, and is cut off at the edges;
    λ ~ Beta(α, α), each sample its own. Yun et al., 2019, arXiv:1905.04899.
    """

    def __init__(self, samples: int, classes: int, alpha: float, shape: Sequence[int], seed: int):
        """shape: (height, width)."""
        self.classes, self.size = classes, _Constant(torch.tensor(shape))
        self.shares = Draws("cutmix", seed, lambda random: _beta(samples, alpha, random))
        self.centres = Draws("cutmix centre", seed, lambda random: _pixels(samples, shape, random))

    def __call__(self, x: Tensor, y: Tensor, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        centre, share = self.centres(index, epoch).to(x.device), self.shares(index, epoch).to(x.device)
        size = self.size(centre)
        half = (0.5 * (1 - share).sqrt()[:, None] * size).long()
        start, stop = (centre - half).clamp(min=0), torch.minimum(centre + half, size)
        kept = 1 - (stop - start).prod(1) / size.prod()
        other = _others(x)
        mixed = torch.where(_boxes(start, stop, x.shape[2:]), x[other], x)
        return mixed, _mixed_labels(y.to(x.device), other, kept, self.classes)


def chain(changes: Sequence[Augment]) -> Augment | None:
    """One change after the other."""
    if not changes:
        return None

    def all_of_them(x: Tensor, index: Tensor, epoch: int) -> Tensor:
        for change in changes:
            x = change(x, index, epoch)
        return x

    return all_of_them


class _Constant:
    """A tensor in the type and on the device of others, where it goes once: a copy makes the host wait for a GPU."""

    def __init__(self, value: Tensor):
        self.value = self.there = value

    def __call__(self, like: Tensor) -> Tensor:
        if (self.there.device, self.there.dtype) != (like.device, like.dtype):
            self.there = self.value.to(like)
        return self.there


def _reflected(x: Tensor, padding: int) -> Tensor:
    """Images with `padding` more pixels a side, mirrored at the edge; torch has that for no bytes."""
    rows, columns = (
        length - 1 - (length - 1 - torch.arange(-padding, length + padding, device=x.device).abs()).abs()
        for length in x.shape[2:]
    )
    return x[:, :, rows[:, None], columns]


def _pixels(samples: int, shape: Sequence[int], random: torch.Generator) -> Tensor:
    """A row and a column for each sample, (samples, 2)."""
    return torch.stack([torch.randint(length, (samples,), generator=random) for length in shape], dim=1)


def _beta(samples: int, alpha: float, random: torch.Generator) -> Tensor:
    """Draws from a Beta distribution with a generator, which torch's own does not take."""
    values = np.random.default_rng(random.initial_seed()).beta(alpha, alpha, samples)
    return torch.from_numpy(values.astype(np.float32))


def _boxes(start: Tensor, stop: Tensor, shape: Sequence[int]) -> Tensor:
    """True inside each sample's box from `start` to before `stop`, rows and columns (B, 2); (B, 1, H, W)."""
    rows, columns = (torch.arange(length, device=start.device) for length in shape)
    inside_rows = (rows >= start[:, :1]) & (rows < stop[:, :1])
    inside_columns = (columns >= start[:, 1:]) & (columns < stop[:, 1:])
    return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]


def _others(x: Tensor) -> Tensor:
    """The place of each sample's partner: pairs lie side by side, and the last of an odd number stays alone."""
    return (torch.arange(len(x), device=x.device) ^ 1).clamp(max=len(x) - 1)


def _mixed_labels(y: Tensor, other: Tensor, share: Tensor, classes: int) -> Tensor:
    """Shares of the classes (B, classes) float32."""
    known = F.one_hot(y, classes).float()
    return torch.lerp(known[other], known, share.float()[:, None])
