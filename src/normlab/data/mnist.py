"""Handwritten digits, the classic.  python train.py model=mynet data=mnist"""

import gzip
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from normlab.data.images.standard import Standard


class Mnist(Standard):
    """70,000 grey 28×28 images of ten digits (LeCun, Cortes & Burges). `<root>/MNIST/raw/`, also as they come, .gz."""

    source = datasets.MNIST

    def files(self) -> list[Path]:
        return [self._file(part, kind) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]

    def part(self, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        name = "train" if train else "t10k"
        images, labels = (_read_idx(self._file(name, kind)) for kind in ("images-idx3", "labels-idx1"))
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        return images[:, None], labels.long(), [name.split(" - ")[-1] for name in self.source.classes]

    def download(self) -> None:
        self.source(self.root, download=True)

    def _file(self, part: str, kind: str) -> Path:
        """The packed file, where only that is there."""
        plain = self.root / self.source.__name__ / "raw" / f"{part}-{kind}-ubyte"
        packed = plain.with_name(f"{plain.name}.gz")
        return packed if packed.is_file() and not plain.is_file() else plain


def _read_idx(file: Path) -> Tensor:
    """An array in the idx format: 0, 0, 8 for bytes, the number of axes, their lengths, the bytes."""
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if content[:3] != b"\0\0\x08" or len(content) < 4:
        raise ValueError(f"{file.name} is no idx file")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4).tolist()
    if len(content) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{file.name} has {len(content)} bytes, not those of the shape {tuple(shape)}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
