"""Learning-rate schedules: how torch's own and others are made and stepped, and two that torch lacks."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from normlab.errors import is_library

# A schedule's state holds its constructor's arguments, and OneCycleLR's also the plan that it makes of them.
PLAN = ("_schedule_phases",)

RATES = ("max_lr", "base_lr", "min_lr")  # arguments of torch's schedulers that are rates, one or one a group


@dataclass
class Schedule:
    """How a scheduler is made, and when it is stepped.

    make: takes the optimizer, and may return None. Where it has a parameter `total_steps`, it is given the number of
    the run's optimizer steps. interval: step or epoch; None: each step where it takes `total_steps`, and otherwise each
    epoch. monitor: the validation metric that a class such as ReduceLROnPlateau looks at after each epoch with a
    validation; the class is then given `mode`, max or min, for the metric's better end. Raises ValueError where these
    do not go together.
    """

    make: Callable[..., Any]
    interval: Literal["step", "epoch"] | None = None
    monitor: str | None = None

    def __post_init__(self) -> None:
        counts_steps = "total_steps" in self._parameters
        if self.interval is None:
            self.interval = "step" if counts_steps else "epoch"
        if self.interval not in ("step", "epoch"):
            raise ValueError(f"scheduler.interval={self.interval}: expected step or epoch")
        if counts_steps and self.interval == "epoch":
            raise ValueError("scheduler.interval=epoch: this one spreads its plan over the steps of the run; use step")
        if self.looks and self.interval == "step":
            raise ValueError("scheduler.interval=step: what it looks at is measured at the end of an epoch; use epoch")
        if self.monitor is not None and not self.looks:
            raise ValueError(f"scheduler.monitor={self.monitor}: this one looks at no metric; leave it out")

    @property
    def looks(self) -> bool:
        """Whether the scheduler's steps take a metric."""
        return "metrics" in inspect.signature(getattr(self.made, "step", lambda: None)).parameters

    def build(self, optimizer: Optimizer, total_steps: int, direction: Callable[[str], str]) -> Any:
        """The scheduler. direction: `max` or `min` of a metric. Raises ValueError or TypeError."""
        offered: dict[str, Any] = {"total_steps": total_steps} if "total_steps" in self._parameters else {}
        if self.monitor is not None:
            offered["mode"] = direction(self.monitor)
        offered |= self._rates([group.get("lr_scale", 1.0) for group in optimizer.param_groups])
        return self.make(optimizer, **offered)

    def _rates(self, scales: Sequence[float]) -> dict[str, list[float]]:
        """The rates among the scheduler's arguments, for each group; empty where all groups have the same.

        Raises ValueError for a rate that torch takes for all groups alike.
        """
        given = getattr(self.make, "keywords", {})
        if all(scale == 1 for scale in scales):
            return {}
        if given.get("eta_min"):
            raise ValueError(
                f"scheduler.eta_min={given['eta_min']}: it is one rate for all, and optimizer.layer_decay, or "
                "norm_bias_scale there, gives parts their own; leave out one of the two"
            )
        numbers = {name: given[name] for name in RATES if isinstance(given.get(name), int | float)}
        return {name: [number * scale for scale in scales] for name, number in numbers.items()}

    def progress(self, state: dict[str, Any]) -> dict[str, Any]:
        """The part of a scheduler's state that steps change; the rest is its plan, which the configuration gives."""
        plan = {*self._parameters, *PLAN} - {"last_epoch"}  # a constructor may take last_epoch, but steps move it
        return {key: value for key, value in state.items() if key not in plan}

    @property
    def made(self) -> Callable[..., Any]:
        return getattr(self.make, "func", self.make)

    @property
    def _parameters(self) -> set[str]:
        return set(inspect.signature(self.made).parameters)


def try_schedule(schedule: Schedule, optimizer: Optimizer, direction: Callable[[str], str]) -> None:
    """Makes the scheduler as training will. Raises ValueError for one that cannot be made."""
    try:
        schedule.build(optimizer, total_steps=1000, direction=direction)
    except (TypeError, ValueError, RuntimeError) as error:
        if not is_library(schedule.made):
            raise
        raise ValueError(f"scheduler: {error}".replace("scheduler: scheduler.", "scheduler.")) from error


def cosine(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """A linear rise over the fraction `warmup` of the steps, then half a cosine down to 0.

    Closed form in the step, unlike torch's CosineAnnealingLR, so that a run that is extended leaves 0 again.
    Loshchilov & Hutter, SGDR, 2017, arXiv:1608.03983.
    """
    rise = warmup * total_steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(total_steps - rise, 1), 1)))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer) -> None:
    """No schedule: the learning rate stays."""
