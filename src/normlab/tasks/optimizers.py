"""The parameters that an optimizer gets, and whether it can be used here."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normlab.errors import is_library
from normlab.norms.common.declaration import declaration


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups; norm parameters and biases are in the second one, without weight decay."""
    decay: dict[nn.Parameter, None] = {}
    plain: dict[nn.Parameter, None] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                is_plain = parameter.ndim <= 1 or declaration(module) is not None
                (plain if is_plain else decay)[parameter] = None
    groups = [{"params": list(decay)}, {"params": list(plain), "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def try_optimizer(make: Callable[..., Any], network: nn.Module) -> Optimizer:
    """An optimizer as training will make it. Raises ValueError for one that cannot be made or used."""
    made = getattr(make, "func", make)
    closure = inspect.signature(getattr(made, "step", lambda: None)).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"optimizer: {made.__name__} looks at a batch several times in each step, which is not supported; choose "
            "another, such as optimizer=adamw"
        )
    try:
        optimizer = make(parameter_groups(network))
    except (TypeError, ValueError, RuntimeError) as error:
        if not is_library(made):
            raise
        raise ValueError(f"optimizer: {error}") from error
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer: {type(optimizer).__name__} is no optimizer of torch")
    return optimizer
