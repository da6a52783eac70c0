"""Loss and metrics of one epoch of one stage."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, SumMetric

from normlab.data.common.labels import count_classes

HELD_VALUES = 2**18  # network outputs held back: 1 MiB in float32
# 64 MiB on a GPU, which waits when torchmetrics counts classes.
HELD_ON_GPU = 2**24


class ClassCounts(Metric):
    """Counts an epoch's samples of each class over all processes, (classes,), or of labels (columns, 2)."""

    counts: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, target: Tensor) -> None:
        self.counts += count_classes(target, len(self.counts))

    def compute(self) -> Tensor:
        return self.counts


class Meter(nn.Module):
    """Mean loss and torchmetrics of an epoch.

    Updating torchmetrics costs more than a step of a small network, so outputs are held back and handed over many
    batches at a time; every metric here gives the same for joined batches as for single ones.
    """

    def __init__(
        self, metrics: MetricCollection, prediction: Callable[[Tensor], Tensor], counts: ClassCounts | None = None
    ):
        """prediction: turns network outputs into what metrics take. counts: counts targets that are classes."""
        super().__init__()
        self.counts = counts
        self.metrics, self.prediction = metrics, prediction
        # Two sums, since a MeanMetric that lets NaN through silently drops the weights (torchmetrics 1.9).
        self.loss_sum, self.samples = SumMetric(nan_strategy="disable"), SumMetric(nan_strategy="disable")
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []
        self.held_values = 0

    def update(self, loss: Tensor, output: Tensor, target: Tensor) -> None:
        """loss: the batch's mean. output and target: a row for each sample. None of them leads to a gradient."""
        self.held.append((loss, output, target))
        self.held_values += output.numel()
        if self.held_values >= (HELD_ON_GPU if output.is_cuda else HELD_VALUES):
            self._hand_over()

    def compute(self) -> dict[str, Tensor]:
        """The epoch's values; `loss` first."""
        self._hand_over()
        return {"loss": self.loss_sum.compute() / self.samples.compute(), **self.metrics.compute()}

    def majority(self) -> Tensor | None:
        """The share of the most frequent class, after `compute`, of labels the mean over columns; None for numbers."""
        if self.counts is None:
            return None
        counts = self.counts.compute()
        return (counts.amax(-1) / counts.sum(-1)).mean()

    def reset(self) -> None:
        self.held.clear()
        self.held_values = 0
        self.loss_sum.reset()
        self.samples.reset()
        self.metrics.reset()
        if self.counts is not None:
            self.counts.reset()

    def state(self) -> dict[str, Any]:
        """What the epoch has measured so far, in tensors and plain values; also what is held back, as it is held."""
        self.metrics.items(copy_state=False)  # metrics that share a state are brought up to date by that
        named = {name: metric for name, metric in self.named_modules() if isinstance(metric, Metric)}
        return {
            "held": [tuple(tensor.cpu().clone() for tensor in batch) for batch in self.held],
            "metrics": {name: _state(metric) for name, metric in named.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave; to be called after `reset`."""
        device = self.samples.device
        for batch in state["held"]:
            self.held.append(tuple(tensor.to(device) for tensor in batch))
            self.held_values += batch[1].numel()
        for name, saved in state["metrics"].items():
            metric: Any = self.get_submodule(name)
            metric._update_count, metric._computed = saved["updates"], None
            for key, value in saved["values"].items():
                setattr(metric, key, [v.to(device) for v in value] if isinstance(value, list) else value.to(device))

    def _hand_over(self) -> None:
        if not self.held:
            return
        losses, outputs, targets = zip(*self.held, strict=True)
        self.held.clear()
        self.held_values = 0
        counts = torch.tensor([len(target) for target in targets]).to(losses[0].device, non_blocking=True)
        self.loss_sum.update(torch.stack(losses) @ counts.to(losses[0]))
        self.samples.update(counts.sum())
        joined = torch.cat(targets)
        self.metrics.update(self.prediction(torch.cat(outputs)), joined)
        if self.counts is not None:
            self.counts.update(joined)


def _state(metric: Metric) -> dict[str, Any]:
    """A metric's sums, or its lists of tensors; its own state dict would leave them out."""
    values = {key: getattr(metric, key) for key in metric._defaults}
    return {
        "updates": metric._update_count,
        "values": {
            key: [v.cpu().clone() for v in value] if isinstance(value, list) else value.cpu().clone()
            for key, value in values.items()
        },
    }
