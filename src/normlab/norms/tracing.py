"""What layers do where torch records a network instead of running it."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch.fx import Proxy

Forward = TypeVar("Forward", bound=Callable[..., Any])


def leaf(forward: Forward) -> Forward:
    """Lets torch.fx keep a layer whole in its graphs, as it keeps torch's own: a call of the module.

    Traced through, a layer would be fixed to the mode that it was in, and its checks have no values to look at.
    """

    def whole(self: Any, x: Any) -> Any:
        if isinstance(x, Proxy):
            tracer: Any = x.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (x,), {})
        return forward(self, x)

    # torch.compile compiles the same code a few times only: no two layers are to share theirs
    whole.__code__ = whole.__code__.replace(co_name=forward.__name__)
    return functools.wraps(forward)(whole)  # pyright: ignore[reportReturnType]
