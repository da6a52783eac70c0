"""Lookahead: steps that are taken from an average of the weights.  python train.py callbacks=lookahead"""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from normlab.callbacks.common.averaged import Averaged
from normlab.tasks.execution import total_steps


class Lookahead(Averaged):
    """w̄ ← ρ w̄ + (1 - ρ) w and then w ← w̄, every `every` steps; validated, saved and used is w̄.

    ρ = decay · (step / steps of the run)^power. With power 0 it is constant and this is Zhang's Lookahead, whose α is
    1 - decay; with a larger one the first steps go almost their own way, and the last ones hardly move the average.
    The average begins with the weights at the first such step. Between two of them training goes on from w̄ by w alone;
    the optimizer's momentum is left as it is. Steps are those of the optimizer, also where several batches are
    accumulated for one, and with those that were left out by nonfinite=skip.

    Running statistics are not averaged: training moves its own as ever, and those of w̄ are estimated, as said in
    `Averaged`. It helps where the rate is high and the run short. It does not help in trainings of few times `every`
    steps.

    Zhang, Lucas, Hinton & Ba, Lookahead Optimizer: k steps forward, 1 step back, 2019, arXiv:1907.08610; the rising ρ
    is that of Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv:2404.00498.
    """

    def __init__(
        self,
        every: int = 5,
        decay: float = 0.77378,
        power: float = 3.0,
        samples: int | None = 10_000,
        in_order: bool = False,
    ):
        super().__init__(self._average, samples, in_order)
        self.every, self.decay, self.power = every, decay, power
        self.share = 0.0  # of the old average in the new one, at the step of now
        self.steps = 0  # of the whole run

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.steps = total_steps(pl_module)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        before = self._latest_update_step
        self.share = self.decay * (trainer.global_step / self.steps) ** self.power
        super().on_train_batch_end(trainer, pl_module, *rest)
        if self._latest_update_step > before:
            self._begin_from_average(pl_module)

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and (step_idx + 1) % self.every == 0

    @torch.no_grad()
    def _begin_from_average(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        for weights, average in zip(pl_module.parameters(), self._average_model.module.parameters(), strict=True):
            weights.copy_(average)

    def _average(self, average: Tensor, weights: Tensor, averaged: Any) -> Tensor:
        return torch.lerp(weights, average, self.share)
