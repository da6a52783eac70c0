"""Scales losses for float16 without making the processor wait for the device."""

from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer


class Scaler(GradScaler):
    """torch's scaler, for optimizers whose steps a flag on the device can leave out; see `normlab.tasks.gate`.

    torch's own reads in each step whether a gradient overflowed. It does not where the optimizer unscales gradients
    itself, but then they are still scaled when they are clipped. This one unscales them first and hands what it found
    to the optimizer. A step that is left out for another reason is no overflow: it moves neither the scale nor the
    count of steps until the scale grows. Optimizers that take no flag step as under torch's.
    """

    def __init__(self, device: str):
        super().__init__(device)
        self.left_out: Tensor | None = None  # whether the last step was to be left out, as a number on the device

    def _maybe_opt_step(
        self, optimizer: Optimizer, optimizer_state: dict[str, Any], *args: Any, **kwargs: Any
    ) -> float | None:
        self.left_out = getattr(optimizer, "found_inf", None)
        if self.left_out is None:
            return super()._maybe_opt_step(optimizer, optimizer_state, *args, **kwargs)
        overflows = optimizer_state["found_inf_per_device"].values()
        optimizer.found_inf = torch.stack([self.left_out, *overflows]).amax()  # pyright: ignore[reportAttributeAccessIssue]
        return optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Moves the scale after a step. See torch's."""
        if self.left_out is None:
            super().update(new_scale)
            return
        assert self._scale is not None
        assert self._growth_tracker is not None
        moving = self._scale, self._growth_tracker
        before = [each.clone() for each in moving]
        super().update(new_scale)
        for each, kept in zip(moving, before, strict=True):
            each.copy_(torch.where(self.left_out > 0, kept, each))
