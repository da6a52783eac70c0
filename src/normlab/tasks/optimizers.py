"""The parameters that an optimizer gets, and whether it can be used here."""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from normlab.distributed.shards import is_cut
from normlab.errors import is_library
from normlab.norms.common.declaration import declaration
from normlab.tasks.depth import layers
from normlab.tasks.freezing import FrozenPart

FUSED = (SGD, Adam, AdamW)  # those that torch has one kernel for, which takes the step of all parameters
DEVICES = ("cpu", "cuda")  # where torch has it since 2.11 at the latest


def parameter_groups(
    network: nn.Module,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    lr: float | None = None,
    thawing: FrozenPart | None = None,
    norm_bias_scale: float | None = None,
) -> list[dict[str, Any]]:
    """The parameters that train, in groups for an optimizer of torch; norm parameters and biases get no weight decay.

    weight_decay: of all others; None leaves it to the optimizer. layer_decay: the rate of a layer is
    lr · layer_decay^d, where d counts the layers above it as `normlab.tasks.depth.layers` tells them: the head has
    d = 0. Each layer then has groups of its own, with its name, `lr` and its share of the rate as `lr_scale`. lr: the
    head's rate, which a layer_decay needs. thawing: a frozen part that will be thawed; its parameters are in the groups
    from the start. While they have no gradient, torch's optimizers leave them as they are.
    norm_bias_scale: what the rate of the norm layers' biases β is multiplied by; they then have groups of their own,
    and need lr too. Jordan, 2024, arXiv:2404.00498.
    Raises ValueError where a layer_decay is not above 0 and at most 1, for a norm_bias_scale that is not above 0, and
    where one of them comes without lr.
    """
    later = {*thawing.parameters.values()} if thawing is not None else set()
    plain: dict[nn.Parameter, bool] = {}  # whether a parameter gets no weight decay
    biases: set[nn.Parameter] = set()  # those of norm layers
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad or parameter in later:
                plain[parameter] = parameter.ndim <= 1 or declaration(module) is not None
                biases |= {parameter} if name == "bias" and declaration(module) is not None else set()
    decaying = {} if weight_decay is None else {"weight_decay": weight_decay}
    scaled = biases if norm_bias_scale not in (None, 1) else set()
    groups: list[dict[str, Any]] = []
    for settings, members in _by_layer(network, plain, layer_decay, lr):
        undecayed = [each for each in members if plain[each]]
        groups.append({"params": [each for each in members if not plain[each]], **settings, **decaying})
        for name, parameters, own in (
            ("plain", [each for each in undecayed if each not in scaled], {}),
            ("biases", [each for each in undecayed if each in scaled], _scaled(settings, norm_bias_scale, lr)),
        ):
            named = {"name": f"{settings['name']}/{name}"} if settings else {}
            groups.append({"params": parameters, **settings, **own, **named, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _scaled(settings: dict[str, Any], scale: float | None, lr: float | None) -> dict[str, Any]:
    """The rate of a layer's norm biases, and its share of the optimizer's."""
    if scale in (None, 1):
        return {}
    if not 0 < scale < math.inf or lr is None:
        raise ValueError(f"norm_bias_scale={scale} of lr={lr}: expected a finite number above 0, and a rate")
    return {"lr": settings.get("lr", lr) * scale, "lr_scale": settings.get("lr_scale", 1.0) * scale}


def _by_layer(
    network: nn.Module, trained: Collection[nn.Parameter], layer_decay: float | None, lr: float | None
) -> Iterator[tuple[dict[str, Any], Sequence[nn.Parameter]]]:
    """The parameters of each layer that are trained, with the layer's settings; all together without a layer_decay."""
    if layer_decay in (None, 1):
        yield {}, list(trained)
        return
    if not 0 < layer_decay < 1 or lr is None:
        raise ValueError(f"layer_decay={layer_decay} of lr={lr}: expected a number above 0 and at most 1, and a rate")
    for above, (name, members) in enumerate(reversed(layers(network).items())):
        scale = layer_decay**above
        settings = {"name": name, "lr": lr * scale, "lr_scale": scale}
        yield settings, [parameter for parameter in members if parameter in trained]


def rate(make: Callable[..., Any]) -> float | None:
    """The learning rate that an optimizer, or a partial of one, is made with; None where it has none."""
    parameter = inspect.signature(make).parameters.get("lr")
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def try_optimizer(make: Callable[..., Any], groups: list[dict[str, Any]]) -> Optimizer:
    """An optimizer as training will make it. Raises ValueError for one that cannot be made or used."""
    made = getattr(make, "func", make)
    closure = inspect.signature(getattr(made, "step", lambda: None)).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"optimizer: {made.__name__} looks at a batch several times in each step, which is not supported; choose "
            "another, such as optimizer=adamw"
        )
    try:
        optimizer = make(groups)
    except (TypeError, ValueError, RuntimeError) as error:
        if not is_library(made):
            raise
        raise ValueError(f"optimizer: {error}") from error
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer: {type(optimizer).__name__} is no optimizer of torch")
    return optimizer


def can_fuse(optimizer: Optimizer) -> bool:
    """Whether an optimizer has one kernel for all parameters, and was not told to step otherwise."""
    return type(optimizer) in FUSED and all(map(_can_fuse, optimizer.param_groups))


def _can_fuse(group: dict[str, Any]) -> bool:
    chosen = group["fused"] is False or group["foreach"] or group["differentiable"] or group.get("capturable")
    # With zeros to begin with, the first step's moment is (1 - dampening) g in place of g.
    plain = all(p.is_floating_point() and p.device.type in DEVICES for p in group["params"])
    return not chosen and not group.get("dampening") and plain


def fuse(optimizer: Optimizer, network: nn.Module) -> None:
    """Lets an optimizer of torch step by one kernel for all parameters, where it can and was not told otherwise.

    The weights are those of torch's default up to rounding. On the CPU a small network's step by SGD takes half of the
    time. Left alone are layers with sparse gradients, and SGD of parameters that are cut into shards, for which torch
    has no such kernel. An optimizer that was made with fused=True would unscale float16's gradients in its step, after
    they were clipped, and so Lightning refuses to clip them; it gets them unscaled here, as every other does.
    """
    optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
    sparse = any(getattr(module, "sparse", False) for module in network.modules())
    if can_fuse(optimizer) and not sparse and not (isinstance(optimizer, SGD) and is_cut(network)):
        use_fused(optimizer)


def use_fused(optimizer: Optimizer) -> None:
    """Has an optimizer step by its kernel for all parameters.

    SGD begins with moments of zeros: torch's kernel dies where some parameters have one and others, as those that were
    thawed, have none yet, and leaves it as memory that nobody has written where a first step changes nothing.
    """
    for group in optimizer.param_groups:
        group["fused"] = True
        if isinstance(optimizer, SGD) and group["momentum"]:
            for parameter in group["params"]:
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
