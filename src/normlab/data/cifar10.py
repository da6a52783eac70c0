"""Small photos of ten kinds of things.  python train.py model=resnet data=cifar10"""

from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets

from normlab.data.images.standard import Standard, to_images


class Cifar10(Standard):
    """60,000 32×32 photos of ten classes (Krizhevsky, 2009). `<root>/cifar-10-batches-py/`."""

    source = datasets.CIFAR10

    def files(self) -> list[Path]:
        folder = self.root / self.source.base_folder
        names = [name for name, _ in (*self.source.train_list, *self.source.test_list)]
        return [folder / name for name in (*names, self.source.meta["filename"])]

    def part(self, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        loaded = self.source(self.root, train)
        return to_images(loaded.data), torch.tensor(loaded.targets), loaded.classes

    def download(self) -> None:
        self.source(self.root, download=True)
