"""Samples of the training part, for networks that begin with what their data looks like."""

import math
from typing import Any

import torch
from torch import Tensor

from normlab.data.common.base import DataModule
from normlab.data.common.seeds import kept_random_state

VALUES = 2**24  # numbers in all samples together: 5461 of CIFAR-10


def training_samples(data: Any) -> Tensor:
    """Training samples (N, *input_shape) as the network takes them, but not augmented, on the CPU.

    They lie evenly over the part, and each process gets the same ones. Of a person's own data they are the first that
    its loader gives, as it gives them. Random numbers stay as they are.
    """
    most = max(1, VALUES // math.prod(data.input_shape))
    with kept_random_state(torch.device("cpu")):
        return _of_ours(data, most) if isinstance(data, DataModule) else _of_loader(data, most)


def _of_ours(data: DataModule, most: int) -> Tensor:
    x, y = data.splits["train"]
    places = torch.linspace(0, len(y) - 1, min(most, len(y))).round().long()
    taken = x[places.to(x.device)] if isinstance(x, Tensor) else next(iter(x.batches([places])))
    transform = data.transform()
    return (taken if transform is None else transform(taken)).cpu()


def _of_loader(data: Any, most: int) -> Tensor:
    batches: list[Tensor] = []
    for x, *_ in data.train_dataloader():
        batches.append(x)
        if sum(map(len, batches)) >= most:
            break
    return torch.cat(batches)[:most].cpu()
