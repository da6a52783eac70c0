"""Finds where NaN and infinities began."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normlab.distributed.collectives import everywhere, of_all
from normlab.distributed.shards import is_cut, kind_of, shard_of
from normlab.errors import PeerError
from normlab.tasks.looks import Looks

REMEDY = "try a smaller optimizer.lr or trainer.gradient_clip_val=1"


def check_loss(
    looks: Looks, loss: Tensor, network: nn.Module, x: Tensor, target: Tensor, stage: str, where: str
) -> None:
    """Raises FloatingPointError, with the cause, where the loss of a batch of validation or test is not finite.

    It does when `looks` comes to it. Where the network is cut over processes, all of them must call this, and it is
    looked at at once; one whose own loss is not the cause raises PeerError. where: the place in the training, in words.
    """
    if is_cut(network):
        _check_cut(loss.item(), loss.device, network, x, target, stage, where)
        return

    def look(values: list[float]) -> None:
        if not math.isfinite(values[0]):
            raise FloatingPointError(f"{stage}/loss is {values[0]} in {where}: {explain(network, x, target)}")

    looks.add(loss.reshape(1), look)


def _check_cut(
    value: float, device: torch.device, network: nn.Module, x: Tensor, target: Tensor, stage: str, where: str
) -> None:
    finite = math.isfinite(value)
    if everywhere(finite, device):
        return
    cause, is_here = first_cause(f"{stage}/loss is {value} in {where}", finite, network, x, target)
    if not is_here:
        raise PeerError(f"{stage}/loss of another process is not finite in {where}")
    raise FloatingPointError(cause)


def explain(network: nn.Module, x: Tensor, target: Tensor) -> str:
    """Why the loss of a batch is not finite: the data, or the first layer that makes NaN or inf of finite numbers."""
    return trace(network, x, target)[1]


def first_cause(symptom: str, finite: bool, network: nn.Module, x: Tensor, target: Tensor) -> tuple[str, bool]:
    """The symptom and cause from the process where NaN or inf arose first, and whether that is this process.

    finite: whether this process's own loss is. All processes must call this, since joint statistics carry NaN from one
    to the others.
    """
    when, cause = trace(network, x, target)
    here = (math.inf if finite else when, f"{symptom}: {cause}")
    first = min(of_all(here))
    return first[1], here == first


def trace(network: nn.Module, x: Tensor, target: Tensor) -> tuple[int, str]:
    """When NaN or inf arose in a batch's forward pass, as the number of modules that had ended, and why; see `explain`.

    The forward pass is always made, since layers may synchronise with processes whose data is good.
    """
    when, first = _first_layer(network, x)
    for name, values in (("x", x), ("target", target)):
        bad = sum(not is_finite(sample) for sample in values)
        if bad:
            return -1, f"{bad} of the batch's {len(values)} samples hold NaN or inf in {name}; clean the data"
    if first is None:
        return when, "the network's output is finite, and the loss of it is not; look at the target's range"
    name, layer = first
    named = f"{name or 'the network'} ({kind(layer)})"
    tensors = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
    bad_state = ", ".join(key for key, value in tensors if not is_finite(value))
    if bad_state:
        return when, f"{named} holds NaN or inf in {bad_state}, which an earlier step left there; {REMEDY}"
    return when, f"{named} is the first layer whose output is not finite though its input is; {REMEDY}"


@torch.no_grad()
def _first_layer(network: nn.Module, x: Tensor) -> tuple[int, tuple[str, nn.Module] | None]:
    """The first module with a finite input and an output that is not, and how many modules had ended before it.

    None in place of the module where there is none.
    """
    ended = 0
    first: list[tuple[str, nn.Module]] = []  # empty, or the module
    inputs: list[bool] = []  # for each module in its forward pass; asked before, as in-place layers change theirs

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs.append(is_finite((args, kwargs)))

    def leave(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal ended
            if inputs.pop() and not first and not is_finite(output):
                first.append((name, module))
            ended += not first

        return look

    hooks = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in network.modules()]
    hooks += [module.register_forward_hook(leave(name)) for name, module in network.named_modules()]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code does not call hooks that were added later
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return ended, first[0] if first else None


def kind(layer: nn.Module) -> str:
    return kind_of(layer).__name__


def is_finite(tree: Any) -> bool:
    """Whether all numbers in a tensor, or in all tensors of a nested structure, are finite."""
    if isinstance(tree, Tensor):
        return bool(torch.isfinite(shard_of(tree)).all())
    if isinstance(tree, Mapping):
        return is_finite(tuple(tree.values()))
    return all(map(is_finite, tree)) if isinstance(tree, list | tuple) else True
