"""What processes exchange during a run. Every process must call each of these functions."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from normlab.errors import WaitError

T = TypeVar("T")


def everywhere(condition: bool, device: torch.device) -> bool:
    """Whether `condition` holds in every process; all of them must ask."""
    return agreed([condition], device)[0]


def agreed(conditions: list[bool], device: torch.device) -> list[bool]:
    """For each of the conditions, whether it holds in every process; all of them must ask."""
    if not several():
        return conditions
    flags = torch.tensor(conditions, dtype=torch.int32, device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MIN)
    return [bool(flag) for flag in flags.tolist()]


def minimum(flags: Tensor) -> Tensor:
    """The least of each flag (n,) over all processes, on the device, where nobody reads it; all of them must ask."""
    if several():
        distributed.all_reduce(flags, distributed.ReduceOp.MIN)
    return flags


def of_all(own: T) -> list[T]:
    """The values of all processes, by rank; all of them must ask."""
    if not several():
        return [own]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, own)
    return values


class LastSent:
    """What this process sent last. It is noted, since NCCL's collectives return before they are done.

    layer: the name of the layer whose statistics or gradients it sent.
    """

    layer: str | None = None


def several() -> bool:
    """Whether this process is one of several in a process group."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def average(values: Tensor, samples: int, layer: str) -> Tensor:
    """The mean of `values` over ranks, each weighted by its samples; without a gradient."""
    total = _sum(torch.cat([values.new_full((1,), samples), samples * values.detach().flatten()]), layer)
    return (total[1:] / total[0]).view_as(values)


def gather(own: Tensor, layer: str) -> Tensor:
    """`own` (values,) of every rank, (ranks, values); without a gradient."""
    ranks = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    _naming(layer, lambda: distributed.all_gather(ranks, own))
    return torch.stack(ranks)


def _sum(own: Tensor, layer: str) -> Tensor:
    """Puts the sum over ranks in the place of `own`."""
    _naming(layer, lambda: distributed.all_reduce(own))
    return own


def _naming(layer: str, collective: Callable[[], Any]) -> None:
    """Runs a collective; where it fails because another rank does not come, the error names the layer and the rank."""
    LastSent.layer = layer
    try:
        collective()
    except RuntimeError as error:
        rank = f"rank {distributed.get_rank()} of {distributed.get_world_size()}"
        raise WaitError(
            f"{rank} waited in vain for the others' statistics in {layer}: a rank died, or did not send a batch "
            "through this layer, as when code runs on one rank alone or ranks have different numbers of batches "
            f"({error})"
        ) from error
