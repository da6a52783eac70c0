"""Networks that are cut over processes, and the shard of a tensor that one process has.

It imports nothing of torch.distributed, which torch may be built without; a DTensor is known by its attributes.
"""

from typing import Any

from torch import Tensor, nn


def is_cut(network: nn.Module) -> bool:
    """Whether a network's parameters are cut."""
    return beneath(type(network)) is not type(network)


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


def beneath(kind: type) -> type:
    """The class of a layer before fully_shard put its own class on top; `kind` itself where it has not."""
    top, *below = kind.__bases__
    return below[0] if top.__name__ == "FSDPModule" else kind  # by its name: torch may be built without it
