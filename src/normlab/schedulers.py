"""Learning-rate schedules over the run's optimizer steps, beside torch's own."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


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


def constant(optimizer: Optimizer, total_steps: int) -> None:
    """No schedule: the learning rate stays."""
