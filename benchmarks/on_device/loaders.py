"""Images that lie on the device, cropped, flipped and covered: ours beside airbench's way."""

from collections.abc import Iterator

import torch
from common import table
from torch import Tensor
from torch.nn import functional as F

from normlab.data.fake import Fake
from on_device.measuring import Place, shown

CROP, CUTOUT = 2, 12


def tables(place: Place) -> Iterator[str]:
    """Images a second of an epoch."""
    samples, batch = (200, 50) if place.quick else (60_000, 1000)
    data = Fake(size=32, channels=3, samples=samples, batch_size=batch, crop=CROP, flip=True, cutout=CUTOUT)
    data.setup()
    x, y = (tensor.to(place.device) for tensor in data.splits["train"])
    data.splits["train"] = x, y
    loader = data.train_dataloader()
    competitors = {"ours": lambda: list(loader), "airbench's way": lambda: list(airbench(x, y, batch))}
    seconds = place.in_turn(competitors, 1, 1 if place.quick else 9)
    rows = [[name, shown(len(y) / seconds[name] if name in seconds else None, 0)] for name in competitors]
    yield f"{len(y)} images of 3 × 32 × 32 in batches of {batch}.\n\n" + table(["", "images/s"], rows)


def airbench(x: Tensor, y: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch as airbench94's loader makes it: padded once, then all images cropped and flipped by masks.

    Written after Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv:2404.00498. x: uint8 images
    (N, 3, H, W). Its covered squares, which that recipe leaves out, are made as its longer ones do.
    """
    images = F.pad((x.half() if x.is_cuda else x.float()) / 255, (CROP,) * 4, "reflect")
    images = cropped(images, x.shape[-1])
    images = torch.where((torch.rand(len(x), device=x.device) < 0.5)[:, None, None, None], images.flip(-1), images)
    images = images.masked_fill(squares(len(x), x.shape[-1], x.device), 0)
    order = torch.randperm(len(x), device=x.device)
    for index in order.split(batch):
        yield images[index], y[index]


def cropped(images: Tensor, size: int) -> Tensor:
    """One of the places of each image, by a mask for each place."""
    shifts = torch.randint(2 * CROP + 1, (len(images), 2), device=images.device)
    out = images.new_empty(len(images), 3, size, size)
    for row in range(2 * CROP + 1):
        for column in range(2 * CROP + 1):
            mask = (shifts[:, 0] == row) & (shifts[:, 1] == column)
            out[mask] = images[mask, :, row : row + size, column : column + size]
    return out


def squares(count: int, size: int, device: torch.device) -> Tensor:
    corners = torch.randint(size - CUTOUT + 1, (2, count, 1, 1, 1), device=device)
    places = torch.arange(size, device=device)
    rows, columns = (places[:, None] - corners[0], places[None, :] - corners[1])
    return (rows >= 0) & (rows < CUTOUT) & (columns >= 0) & (columns < CUTOUT)
