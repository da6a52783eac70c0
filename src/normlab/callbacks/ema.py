"""An exponential moving average of the weights.  python train.py callbacks=ema"""

from torch.optim.swa_utils import get_ema_avg_fn
from typing_extensions import override

from normlab.callbacks.common.averaged import Averaged


class EMA(Averaged):
    """w̄ ← decay w̄ + (1 - decay) w after each step; validated, saved and used is w̄, with statistics of its own.

    It averages about the last 1 / (1 - decay) steps, and begins with the weights after the first step. It helps where
    the learning rate is high to the end; does not help where the schedule lets it fall to zero, which averages too, nor
    in trainings of fewer steps than it averages. Everything else is said in `Averaged`.

    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    """

    def __init__(self, decay: float = 0.999, samples: int | None = 10_000, in_order: bool = False):
        super().__init__(get_ema_avg_fn(decay), samples, in_order)

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None
