"""Loss and metrics of one epoch of one stage."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection, SumMetric

HELD_VALUES = 2**18  # network outputs held back: 1 MiB in float32


class Meter(nn.Module):
    """Mean loss and torchmetrics of an epoch.

    Updating torchmetrics costs more than a step of a small network, so outputs are held back and handed over in
    bundles; every metric here gives the same for one bundle as for its batches.
    """

    def __init__(self, metrics: MetricCollection, prediction: Callable[[Tensor], Tensor]):
        """`prediction` turns network outputs into what metrics take."""
        super().__init__()
        self.metrics, self.prediction = metrics, prediction
        # Two sums and not MeanMetric, which, told to let NaN through, silently drops the weights (torchmetrics 1.9)
        self.loss_sum, self.samples = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []
        self.held_values = 0

    def update(self, loss: Tensor, output: Tensor, target: Tensor) -> None:
        """`loss` is the batch's mean, `output` and `target` have a row a sample."""
        self.held.append((loss.detach(), output.detach(), target))
        self.held_values += output.numel()
        if self.held_values >= HELD_VALUES:
            self._hand_over()

    def compute(self) -> dict[str, Tensor]:
        """The epoch's values; `loss` first."""
        self._hand_over()
        return {"loss": self.loss_sum.compute() / self.samples.compute(), **self.metrics.compute()}

    def reset(self) -> None:
        self.held.clear()
        self.held_values = 0
        self.loss_sum.reset()
        self.samples.reset()
        self.metrics.reset()

    def _hand_over(self) -> None:
        if not self.held:
            return
        losses, outputs, targets = zip(*self.held, strict=True)
        self.held.clear()
        self.held_values = 0
        counts = torch.tensor([len(target) for target in targets], device=losses[0].device)
        self.loss_sum.update(torch.stack(losses) @ counts.to(losses[0]))
        self.samples.update(counts.sum())
        self.metrics.update(self.prediction(torch.cat(outputs)), torch.cat(targets))
