"""How layers behave where torch records or compiles a network instead of running it as written."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Proxy

Forward = TypeVar("Forward", bound=Callable[..., Any])


def leaf(forward: Forward) -> Forward:
    """Lets torch.fx keep a layer as one node in its graphs, as it does with torch's own layers.

    If fx traced through a layer, the layer would be fixed to its mode, and its checks would have no values to look at.
    """

    def whole(self: Any, x: Any) -> Any:
        if isinstance(x, Proxy):
            tracer: Any = x.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (x,), {})
        return forward(self, x)

    # torch.compile compiles the same code only a few times, so no two layers may share theirs.
    whole.__code__ = whole.__code__.replace(co_name=forward.__name__)
    return functools.wraps(forward)(whole)  # pyright: ignore[reportReturnType]


@torch.library.custom_op("normlab::kept", mutates_args=())
def _kept(values: Tensor) -> Tensor:
    return values.clone()


@_kept.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


def kept(values: Tensor) -> Tensor:
    """`values` that were made of buffers which training has yet to move, without a gradient, for use after that.

    torch.compile would compute them once more in its backward pass, of the buffers as they are then (torch 2.15,
    pytorch #197039). What an operation gives that it does not know, it keeps.
    """
    compiles = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    return _kept(values) if compiles else values


def check_not_exported(name: str) -> None:
    """Raises ValueError where torch.export records training whose gradient is not autograd's of the forward pass."""
    if torch.compiler.is_exporting():
        raise ValueError(
            f"norm={name}: torch.export does not record the gradient of this layer, which is no plain derivative of "
            "what it computes; export the network in evaluation, after network.eval()"
        )
