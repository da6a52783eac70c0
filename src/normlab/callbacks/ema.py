"""An exponential moving average of the weights.  python train.py callbacks=ema"""

import torch
from torch import Tensor
from typing_extensions import override

from normlab.callbacks.common.averaged import Averaged


class EMA(Averaged):
    """w̄ ← d w̄ + (1 - d) w after each step; validated, saved and used is w̄, with statistics of its own.

    After n steps d is (1 + n) / (10 + n), and `decay` from where that is less: about the last ninth of the steps are
    averaged, and never more than the last 1 / (1 - decay). With `decay` from the start, the average of a training of
    fewer steps than that would be little more than the initial weights. It begins with the weights after the first
    step. It helps where the learning rate is high to the end; it does not help where the schedule lets it fall to zero,
    which averages too. Everything else is said in `Averaged`.

    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992. The growing d is that of
    TensorFlow's ExponentialMovingAverage with `num_updates`.
    """

    def __init__(self, decay: float = 0.999, samples: int | None = 10_000, in_order: bool = False):
        super().__init__(self._average, samples, in_order)
        self.decay = decay

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None

    def _average(self, average: Tensor, weights: Tensor, updates: Tensor | int) -> Tensor:
        """updates: how many steps are in the average; torch counts them on the device, where they are left."""
        n = torch.as_tensor(updates, dtype=torch.float32, device=average.device)
        share = (9 / (10 + n)).clamp(min=1 - self.decay)  # of the new weights
        return torch.lerp(average, weights, share.to(average.dtype))
