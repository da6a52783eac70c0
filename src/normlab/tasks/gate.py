"""Lets an optimizer step or not, as a flag on the device says, which the processor does not read."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from normlab.tasks.optimizers import can_fuse


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
    if len(optimizers) != 1 or not can_fuse(optimizers[0]):
        return None
    (optimizer,) = optimizers
    # With zeros to begin with, the first step's moment is (1 - dampening) g in place of g.
    dampened = any(group.get("dampening") for group in optimizer.param_groups)
    return None if dampened else Gate(optimizer, device)


def _begin_with_zeros(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    """Makes SGD's moments, which a first step that changes nothing would leave as memory that nobody has written."""
    for parameter in parameters:
        state = optimizer.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
