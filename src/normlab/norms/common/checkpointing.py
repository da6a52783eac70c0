"""Activation checkpointing that leaves running statistics as the plain forward pass would."""

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as torch_checkpoint

_on_copies: ContextVar[bool] = ContextVar("on_copies", default=False)


def checkpoint(module: nn.Module, *args: Any) -> Any:
    """`module(*args)` without keeping the activations inside; the backward pass computes them again.

    Outputs, gradients and buffers are bit for bit those of `module(*args)`: the second forward pass meets the buffers
    as they were before the first, and moves copies of them. torch's own `checkpoint` moves a BatchNorm's statistics
    twice (pytorch #96136), and where training uses the running statistics, as batch renormalization does, it computes
    other activations than the first time. Random numbers such as dropout's are drawn alike, and autocast is as it was.

    A layer that moves buffers in its backward pass must look them up there, on the module, and not keep them from its
    forward pass. Does not help where memory is not short: it costs one more forward pass.

    Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, arXiv:1604.06174.
    """
    if not torch.is_grad_enabled():
        return module(*args)
    if torch.compiler.is_compiling():  # compiled code moves buffers outside of what it computes again
        return torch_checkpoint.checkpoint(module, *args, use_reentrant=False)
    recomputation = _Recomputation(module)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), recomputation

    return torch_checkpoint.checkpoint(module, *args, use_reentrant=False, context_fn=contexts)


def moves_statistics() -> bool:
    """Whether a forward pass in training may move running statistics; one that torch's checkpoint repeats may not.

    A forward pass within a backward pass is taken for such a repetition.
    """
    if torch.compiler.is_compiling():
        return True
    return torch._C._current_graph_task_id() == -1 or _on_copies.get()


def check_first_pass(name: str) -> None:
    """Raises ValueError where torch's own checkpoint repeats the pass of a layer whose output depends on its state."""
    if not moves_statistics():
        raise ValueError(
            f"norm={name}: torch's checkpoint computes this layer again with the statistics moved on; use "
            "normlab.norms.common.checkpointing.checkpoint"
        )


def recomputing() -> bool:
    """Whether this is the second forward pass of `checkpoint`, whose buffers are copies."""
    return _on_copies.get()


class _Recomputation:
    """A context that puts copies of a module's buffers, as they are now, in their place; entered any number of times.

    Other tensors, not other values: those that autograd has saved keep their versions.
    """

    def __init__(self, module: nn.Module):
        self.slots: list[tuple[dict[str, Any], str]] = [
            (owner._buffers, name)
            for owner in module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self.before: list[Tensor] = [held[name].detach().clone() for held, name in self.slots]

    def __enter__(self) -> None:
        self.own = [held[name] for held, name in self.slots]
        self.token = _on_copies.set(True)
        for (held, name), value in zip(self.slots, self.before, strict=True):
            held[name] = value.clone()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for (held, name), own in zip(self.slots, self.own, strict=True):
            held[name] = own
        _on_copies.reset(self.token)
