"""Networks that are cut over processes, and the shard of a tensor that one process has.

It imports nothing of torch.distributed, which torch may be built without; a DTensor is known by its attributes.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def is_cut(network: nn.Module) -> bool:
    """Whether a network's parameters are cut."""
    return kind_of(network) is not type(network)


def shard_of(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor; the tensor itself where it is whole."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


def cut_like(value: Any, held: Any) -> Any:
    """The shard of `value` for this process, cut as the tensor `held` is; `value` itself where `held` is whole."""
    if not hasattr(held, "device_mesh") or not isinstance(value, Tensor) or value.shape != held.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    on_device = value.to(held.device_mesh.device_type)
    return distribute_tensor(on_device, held.device_mesh, held.placements, src_data_rank=None)


def kind_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module, or the class that it had before fully_shard put one of its own on top."""
    return _beneath(type(module))


SHARDED: dict[type[nn.Module], type[nn.Module]] = {}  # fully_shard's class for each class exchanged beneath it


def exchanged(kind: type[nn.Module], others: Mapping[type[nn.Module], type[nn.Module]]) -> type[nn.Module]:
    """The class that `others` has for `kind`; where fully_shard put its class on top, the one beneath is exchanged."""
    below = _beneath(kind)
    other = others.get(below, below)
    if other is below or kind is below:
        return other if kind is below else kind
    SHARDED[below] = kind
    if other not in SHARDED:
        kept = {"__deepcopy__": vars(kind)["__deepcopy__"]}
        SHARDED[other] = type(f"FSDP{other.__name__}", (kind.__bases__[0], other), kept)
    return SHARDED[other]


def _beneath(kind: type[nn.Module]) -> type[nn.Module]:
    top, *below = kind.__bases__
    return below[0] if top.__name__ == "FSDPModule" else kind  # by its name: torch may be built without it
