"""Handwritten digits as images.  python train.py data=digits data.size=32 data.channels=3"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from normlab.data.common.base import FACTS, DataModule
from normlab.data.common.batches import Augment, Draws, Source
from normlab.data.common.portions import Portion
from normlab.errors import ConfigError


class Digits(DataModule):
    """1,797 grey 8×8 images of ten digits (Alpaydin & Kaynak, UCI), enlarged to size×size, repeated in `channels`.

    None leaves them 8×8, and in one channel.

    Pixels are standardised with the training part's mean and deviation. Training images move by up to `shift` pixels
    along each side, differently in each epoch; 0 leaves them.
    """

    task = "classify"
    out_features = 10
    facts: ClassVar[Sequence[str]] = (*FACTS, "mean", "std")
    mean: float  # of all pixels, from 0 to 1
    std: float

    def __init__(self, size: int | None = 32, channels: int | None = 3, shift: int = 2, **splits: Any):
        super().__init__(**splits)
        self.size, self.channels, self.shift = size or 8, channels or 1, shift
        self.input_shape = (self.channels, self.size, self.size)

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        bunch: Any = load_digits()
        self.raw = torch.tensor(bunch.images)
        return {"train": (self._images(bunch.images), torch.tensor(bunch.target))}

    def preprocess(self, train: Tensor) -> Callable[[Tensor], Tensor]:
        std, mean = torch.std_mean(train, correction=0)
        self.mean, self.std = mean.item(), std.item()
        return self._standardise

    @property
    def values_in(self) -> int:
        return 64

    def take_new(self, given: Any) -> Portion:
        """Images (N, 8, 8), or rows of them (N, 64), with the values from 0 to 16 that scikit-learn's set has."""
        pixels = np.asarray(given)
        if pixels.dtype.kind not in "uif" or pixels.shape[1:] not in ((64,), (8, 8)):
            raise ConfigError(
                f"X has the shape {pixels.shape} and values of type {pixels.dtype}; expected numbers from 0 to 16, "
                "(samples, 64) or (samples, 8, 8), as sklearn.datasets.load_digits gives them"
            )
        if not np.isfinite(pixels).all():
            raise ConfigError("X has values that are NaN or inf, for which this data has no rule")
        images = self._standardise(self._images(pixels.reshape(-1, 8, 8)))
        return Portion(images, [str(number + 1) for number in range(len(images))])

    def _images(self, pixels: np.ndarray) -> Tensor:
        """Images (N, channels, size, size), from 0 to 1, of pixels (N, 8, 8) from 0 to 16."""
        images = torch.tensor(pixels, dtype=torch.float32).unsqueeze(1) / 16
        images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return images.expand(-1, self.channels, -1, -1).contiguous()

    def _standardise(self, x: Tensor) -> Tensor:
        return (x - torch.tensor(self.mean)) / torch.tensor(self.std)

    def raw_facts(self) -> dict[str, Any]:
        return {"samples": "pixels of the enlarged image, from 0 (paper) to 1 (ink)"}

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
