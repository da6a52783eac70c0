"""Classification."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, classification
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from normlab.config.metrics import CLASSIFY
from normlab.tasks.base import Task
from normlab.tasks.losses import trial_classes, try_loss
from normlab.tasks.meter import ClassCounts
from normlab.tasks.metrics import named_metrics


class Classify(Task):
    """Cross-entropy on logits (N, classes) and classes (N,), or shares of classes (N, classes) as mixing gives them.

    `class_weights` (classes,) weigh each sample's loss by its class; the mean is over samples, not over weights, so
    that it stays the mean of a batch's parts. Metrics take the class with the largest share.

    Metrics: acc (share of right samples), f1 (mean over classes), auroc (mean of one class against the rest; keeps all
    outputs of an epoch in memory); and torchmetrics' for several classes, such as precision and confusion_matrix.
    """

    score = "val/acc"
    default_metrics = CLASSIFY

    class_weights: Tensor | None

    def __init__(self, network, optimizer, scheduler, num_classes: int, class_weights: Tensor | None = None, **options):
        self.num_classes = num_classes
        super().__init__(network, optimizer, scheduler, **options)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def available_metrics(self) -> dict[str, Callable[[], Metric]]:
        _, classes = self.torchmetrics()
        return {
            "acc": partial(MulticlassAccuracy, average="micro", **classes),
            "f1": partial(MulticlassF1Score, average="macro", **classes),
            "auroc": partial(MulticlassAUROC, average="macro", **classes),
        }

    def torchmetrics(self) -> tuple[dict[str, Callable[..., Metric]], dict[str, object]]:
        return named_metrics(classification, "Multiclass"), {"num_classes": self.num_classes, "validate_args": False}

    def trial(self) -> tuple[Tensor, Tensor, Tensor]:
        logits, target = trial_classes(self.num_classes)
        return logits, -logits, target

    def own_loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(output, target)
        weights = self.class_weights.to(output.dtype)
        return F.cross_entropy(output, target, weights, reduction="sum") / len(target)

    def check_mixing(self) -> None:
        """Raises ValueError for a loss that cannot take shares of classes."""
        if self.criterion is not None:
            right, wrong, target = self.trial()
            try_loss(self.criterion, right, wrong, 0.8 * F.one_hot(target, self.num_classes) + 0.2 / self.num_classes)

    def class_counts(self) -> ClassCounts:
        return ClassCounts(self.num_classes)

    def label(self, target: Tensor) -> Tensor:
        return target.argmax(1) if target.ndim == 2 else target

    def answer(self, output: Tensor) -> Tensor:
        return output.softmax(1)

    def prediction(self, output: Tensor) -> Tensor:
        """Logits (N, classes), or probabilities for metrics that would guess which of the two they are given."""
        return output if self.measures <= {*self.default_metrics} else output.softmax(1)
