"""The domain that a batch's samples come from, for `norm=domain`."""

import torch
from torch import Tensor


def domain_of(batch: int | Tensor) -> int:
    """The domain of a batch: its number as it is, or the one number that all of its samples have.

    Reads a tensor, for which a GPU would wait. Raises ValueError for a batch of several domains.
    """
    if isinstance(batch, int):
        return batch
    values = torch.as_tensor(batch).unique().tolist()
    if len(values) != 1:
        raise ValueError(f"a batch holds samples of domains {values}: take each batch from one domain")
    return values[0]
