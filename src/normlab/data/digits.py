"""Handwritten digits as images.  python train.py data=digits data.size=32 data.channels=3"""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from normlab.data.common.base import DataModule
from normlab.data.common.batches import Augment, Draws, Source


class Digits(DataModule):
    """1,797 grey 8×8 images of ten digits (Alpaydin & Kaynak, UCI), enlarged to size×size, repeated in `channels`.

    None leaves them 8×8, and in one channel.

    Pixels are standardised with the training part's mean and deviation. Training images move by up to `shift` pixels
    along each side, differently in each epoch; 0 leaves them.
    """

    task = "classify"
    out_features = 10

    def __init__(self, size: int | None = 32, channels: int | None = 3, shift: int = 2, **splits: Any):
        super().__init__(**splits)
        self.size, self.channels, self.shift = size or 8, channels or 1, shift
        self.input_shape = (self.channels, self.size, self.size)

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        bunch: Any = load_digits()
        self.raw = torch.tensor(bunch.images)
        images = self.raw.float().unsqueeze(1) / 16
        images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return {"train": (images.expand(-1, self.channels, -1, -1).contiguous(), torch.tensor(bunch.target))}

    def preprocess(self, train: Tensor) -> Callable[[Tensor], Tensor]:
        std, mean = torch.std_mean(train, correction=0)
        return lambda x: (x - mean) / std

    def augmentation(self) -> Augment | None:
        return Shift(len(self.splits["train"][0]), self.shift, self.seed) if self.shift else None


class Shift:
    """Moves each image of a batch (B, C, H, W) by its own whole number of pixels up to `most`; edges are repeated.

    The shifts depend on (seed, epoch, sample) alone.
    """

    def __init__(self, samples: int, most: int, seed: int):
        self.shifts = Draws(
            "shift", seed, lambda random: torch.randint(-most, most + 1, (samples, 2), generator=random)
        )

    def __call__(self, x: Tensor, index: Tensor, epoch: int) -> Tensor:
        height, width = x.shape[2:]
        down, right = self.shifts(index, epoch).T[:, :, None]  # (B, 1) each
        rows = (torch.arange(height, device=x.device) - down).clamp(0, height - 1)  # (B, H)
        columns = (torch.arange(width, device=x.device) - right).clamp(0, width - 1)  # (B, W)
        images = torch.arange(len(x), device=x.device)[:, None, None]
        return x[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
