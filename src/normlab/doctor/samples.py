"""The samples that a diagnosis looks at: a few batches of a loader, and batches of other sizes from them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Batch = Sequence[Tensor]

MOST_BYTES = 1 << 29  # of the samples that are kept


def take(loader: Iterable[Any], samples: int, device: torch.device) -> list[Batch]:
    """Batches of about so many samples in all, from evenly over the loader where it has a length.

    A part that is sorted by class is so not judged by its first classes. Raises ValueError for a batch that is no pair.
    """
    batches: list[Batch] = []
    seen = size = 0
    every = 1
    for number, batch in enumerate(loader):
        if not isinstance(batch, list | tuple) or len(batch) < 2 or not all(map(torch.is_tensor, batch)):
            raise ValueError(f"the doctor takes batches (x, y, …) of tensors; got {type(batch).__name__}")
        if number == 0:
            wanted = max(1, -(-samples // max(1, len(batch[0]))))
            every = max(1, len(loader) // wanted) if hasattr(loader, "__len__") else 1  # pyright: ignore
        if number % every or not len(batch[0]):
            continue
        batches.append([tensor.to(device) for tensor in batch])
        seen += len(batch[0])
        size += batch[0].nbytes
        if seen >= samples or size >= MOST_BYTES:
            break
    return batches


def regrouped(batches: Sequence[Batch], size: int) -> list[Batch]:
    """The same samples in the same order, in batches of `size`; a rest of one sample joins the batch before it.

    Batches with more than samples and targets stay as they are, since their domain is one of the whole batch.
    """
    if any(len(batch) > 2 for batch in batches):
        return list(batches)
    x, y = (torch.cat([batch[place] for batch in batches]) for place in (0, 1))
    cuts = [*range(0, len(x), size), len(x)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        del cuts[-2]
    return [(x[a:b], y[a:b]) for a, b in pairwise(cuts)]
