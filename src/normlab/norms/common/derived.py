"""Functions whose gradient is derived by hand, for speed, with a formula for where autograd needs one.

A subclass of `Derived` writes its function twice: `forward` and `backward` with as few passes over memory as can be,
and `formula` plainly, of operations that torch differentiates itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Derived(torch.autograd.Function):
    """An autograd Function beside the formula that it computes; `forward` and `formula` take the same arguments."""

    @staticmethod
    def formula(*args: Any) -> Any:
        """The same function, written in plain operations of torch."""
        raise NotImplementedError


def derived(function: type[Derived], *args: Any) -> Any:
    """`function(*args)`, by its formula where torch.export records what autograd will differentiate later."""
    return function.formula(*args) if torch.compiler.is_exporting() else function.apply(*args)


def again() -> bool:
    """Whether the backward pass that calls this will be differentiated itself, which `create_graph=True` asks for."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()  # compiled code has no second derivatives


def gradients(
    function: type[Derived], inputs: Sequence[Tensor], *upstream: Tensor, **settings: Any
) -> list[Tensor | None]:
    """The gradients of a function's formula by each of `inputs`, which can be differentiated again.

    `upstream` are those of its outputs, `settings` its arguments that are no tensors. None where nobody asks for one.
    """
    own = [tensor.view_as(tensor) for tensor in inputs]  # views, as one input may have been made from another
    outputs = function.formula(*own, **settings)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    asked = [tensor for tensor in own if tensor.requires_grad]
    grads = iter(torch.autograd.grad(outputs, asked, upstream, create_graph=True, allow_unused=True))
    return [next(grads) if tensor.requires_grad else None for tensor in own]
