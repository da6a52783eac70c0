"""Noise, to load a machine with.  python train.py model=resnet data=fake data.size=224 data.samples=2000"""

from typing import Any

import torch
from torch import Tensor

from normlab.data.common.batches import Source
from normlab.data.common.seeds import generator
from normlab.data.images.base import Images
from normlab.errors import ConfigError


class Fake(Images):
    """Random pixels and as many of each of `classes`, in memory: nothing to learn."""

    def __init__(self, samples: int = 1000, classes: int = 10, **images: Any):
        super().__init__(**images)
        self.samples, self.out_features = samples, classes
        if self.size is None or self.channels is None:
            raise ConfigError("data.size=null or data.channels=null: fake images have none of their own")
        self.input_shape = (self.channels, self.size, self.size)

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        shape, random = (self.samples, *self.input_shape), generator("fake", self.samples)
        pixels = torch.randint(256, shape, dtype=torch.uint8, generator=random)
        return {"train": (pixels, torch.arange(self.samples) % self.out_features)}
