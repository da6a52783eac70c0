"""Data to train on, as a person would bring it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def image_folder(folder: Path, classes: str = "ab", images: int = 20, size: tuple[int, int] = (8, 8)) -> Path:
    """`<folder>/<class>/<number>.png` of random pixels, another for each class and number; width and height `size`."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            random = np.random.default_rng([ord(name), number])
            pixels = random.integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


class Streamed:
    """Samples of a tensor, as if they did not lie in memory; refuses to give more than a few at once."""

    def __init__(self, x: torch.Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: torch.Tensor) -> "Streamed":
        return Streamed(self.x[index])

    def batches(self, steps: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        assert max(map(len, steps)) <= 512
        return (self.x[step] for step in steps)


def idx_files(root: Path, name: str) -> Path:
    """MNIST's files, with 200 images to train and 50 to test on."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 50)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return root


def new_samples(data, path: Path) -> tuple[torch.Tensor, list[str]]:
    """All portions of a file or folder of new samples, and their names."""
    portions = [*data.read_new(path)]
    return torch.cat([portion.x for portion in portions]), [name for portion in portions for name in portion.names]
