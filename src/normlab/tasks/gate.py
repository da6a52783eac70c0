"""Lets an optimizer step or not, as a flag on the device says, which the processor does not read."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from normlab.tasks.optimizers import can_fuse, use_fused


class Gate:
    """Keeps weights and moments as they are in a step for which one of the batches was to be left out."""

    def __init__(self, optimizer: Optimizer, device: torch.device):
        self.optimizer, self.device = optimizer, device
        self.closed = self._open()
        use_fused(optimizer)
        for group in optimizer.param_groups:
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
    (optimizer, *others) = optimizers
    return Gate(optimizer, device) if not others and can_fuse(optimizer) else None
