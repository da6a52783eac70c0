"""Regression."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score, regression

from normlab.config.metrics import REGRESS
from normlab.tasks.base import Task
from normlab.tasks.losses import trial_numbers
from normlab.tasks.metrics import named_metrics


class Regress(Task):
    """Mean squared error on a standardised target (N, width); metrics and predictions are in the target's own units.

    `target_mean` and `target_std` (width,) are the training part's; they are saved with the weights. Metrics: mse, mae,
    r2 (mean over the target's columns); and torchmetrics' for regression.
    """

    score = "val/r2"
    default_metrics = REGRESS
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, network, optimizer, scheduler, target_mean: Tensor, target_std: Tensor, **options):
        self.width = len(target_mean)
        super().__init__(network, optimizer, scheduler, **options)
        self.register_buffer("target_mean", target_mean)
        self.register_buffer("target_std", target_std)

    def available_metrics(self) -> dict[str, Callable[[], Metric]]:
        return {"mse": MeanSquaredError, "mae": MeanAbsoluteError, "r2": R2Score}

    def torchmetrics(self) -> tuple[dict[str, Callable[..., Metric]], dict[str, object]]:
        return named_metrics(regression), {"num_outputs": self.width}

    def trial(self) -> tuple[Tensor, Tensor, Tensor]:
        target = trial_numbers(self.width)
        return target, target + 1, target

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, (target - self.target_mean) / self.target_std)

    def own_loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target)

    def answer(self, output: Tensor) -> Tensor:
        return self.prediction(output)

    def prediction(self, output: Tensor) -> Tensor:
        return torch.addcmul(self.target_mean, output, self.target_std)
