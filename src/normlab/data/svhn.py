"""House numbers.  python train.py model=resnet data=svhn"""

from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets

from normlab.data.images.standard import Standard


class Svhn(Standard):
    """99,289 32×32 photos of digits on houses (Netzer et al., 2011). `<root>/{train,test}_32x32.mat`."""

    source = datasets.SVHN

    def files(self) -> list[Path]:
        return [self.root / self.source.split_list[part][1] for part in ("train", "test")]

    def part(self, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        loaded = self.source(self.root, "train" if train else "test")
        labels = torch.from_numpy(loaded.labels)
        return torch.from_numpy(loaded.data).contiguous(), labels, [str(c) for c in range(int(labels.max()) + 1)]

    def download(self) -> None:
        for part in ("train", "test"):
            self.source(self.root, part, download=True)
