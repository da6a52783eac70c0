"""Classification."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from normlab.tasks.base import Task
from normlab.tasks.meter import ClassCounts


class Classify(Task):
    """Cross-entropy on logits (N, classes) and classes (N,), or shares of classes (N, classes) as mixing gives them.

    `class_weights` (classes,) weigh each sample's loss by its class; the mean is over samples, not over weights, so
    that it stays the mean of a batch's parts. Metrics take the class with the largest share.

    Metrics: acc (share of right samples), f1 (mean over classes), auroc (mean of one class against the rest; keeps all
    outputs of an epoch in memory).
    """

    score = "val/acc"
    default_metrics = ("acc", "f1")

    class_weights: Tensor | None

    def __init__(self, network, optimizer, scheduler, num_classes: int, class_weights: Tensor | None = None, **options):
        self.num_classes = num_classes
        super().__init__(network, optimizer, scheduler, **options)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def available_metrics(self) -> dict[str, Callable[[], Metric]]:
        classes = {"num_classes": self.num_classes, "validate_args": False}
        return {
            "acc": partial(MulticlassAccuracy, average="micro", **classes),
            "f1": partial(MulticlassF1Score, average="macro", **classes),
            "auroc": partial(MulticlassAUROC, average="macro", **classes),
        }

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(output, target)
        weights = self.class_weights.to(output.dtype)
        return F.cross_entropy(output, target, weights, reduction="sum") / len(target)

    def class_counts(self) -> ClassCounts:
        return ClassCounts(self.num_classes)

    def label(self, target: Tensor) -> Tensor:
        return target.argmax(1) if target.ndim == 2 else target

    def answer(self, output: Tensor) -> Tensor:
        return output.softmax(1)

    def prediction(self, output: Tensor) -> Tensor:
        """Logits (N, classes); probabilities where auroc is chosen, which would guess which of the two it is given."""
        return output.softmax(1) if "auroc" in self.train_meter.metrics else output
