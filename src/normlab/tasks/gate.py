"""Lets an optimizer step or not, as a flag on the device says, which the processor does not read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

FUSED = (SGD, Adam, AdamW)  # those whose one kernel for a step takes such a flag, as a gradient scaler gives it


class Gate:
    """Keeps weights and moments as they are in a step for which one of the batches was to be left out."""

    def __init__(self, optimizer: Optimizer, device: torch.device):
        self.optimizer, self.device = optimizer, device
        self.closed = self._open()
        for group in optimizer.param_groups:
            group["fused"] = True
            if isinstance(optimizer, SGD) and group["momentum"]:
                _begin_with_zeros(optimizer, group["params"])
            for state in (optimizer.state[each] for each in group["params"] if each in optimizer.state):
                if "step" in state:  # an unfused Adam counts on the processor
                    state["step"] = state["step"].to(device, torch.float32)

    def leave_out(self, bad: Tensor) -> None:
        """Closes the gate for the next step where `bad`, a single truth value on the device, is true."""
        self.closed = torch.maximum(self.closed, bad.to(self.closed))

    def before_step(self) -> None:
        """Hands what was said since the last step to the next one."""
        self.optimizer.found_inf = self.closed  # pyright: ignore[reportAttributeAccessIssue]
        self.closed = self._open()

    def _open(self) -> Tensor:
        return torch.zeros((), device=self.device)


def make_gate(optimizers: Sequence[Optimizer], device: torch.device) -> Gate | None:
    """A gate for the optimizer of a run; None where its steps cannot be kept from the processor's eyes.

    The optimizer then steps by the fused kernel, unless it was told not to.
    """
    if len(optimizers) != 1 or type(optimizers[0]) not in FUSED:
        return None
    (optimizer,) = optimizers
    return Gate(optimizer, device) if all(map(_can_fuse, optimizer.param_groups)) else None


def _can_fuse(group: dict[str, Any]) -> bool:
    chosen = group["fused"] is False or group["foreach"] or group["differentiable"] or group.get("capturable")
    # With zeros to begin with, the first step's moment is (1 - dampening) g in place of g.
    return not chosen and not group.get("dampening") and all(p.is_floating_point() for p in group["params"])


def _begin_with_zeros(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    """Makes SGD's moments, which a first step that changes nothing would leave as memory that nobody has written."""
    for parameter in parameters:
        state = optimizer.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
