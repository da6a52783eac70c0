"""Multi-label classification: several columns, each of two classes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, classification
from torchmetrics.classification import MultilabelAccuracy, MultilabelAUROC, MultilabelF1Score

from normlab.config.metrics import CLASSIFY
from normlab.tasks.base import Task
from normlab.tasks.losses import trial_labels, try_loss
from normlab.tasks.meter import ClassCounts
from normlab.tasks.metrics import named_metrics


class Multilabel(Task):
    """Binary cross-entropy on logits (N, columns) and labels (N, columns) of 0 and 1, each column by itself.

    The loss is the mean over samples and columns; `class_weights` (columns, 2) weigh each term by its column and label.
    A label is predicted where its probability is above 0.5.

    Metrics, each the mean over columns: acc (share of right labels), f1 (of label 1), auroc (keeps all outputs of an
    epoch in memory); and torchmetrics' for several labels, such as precision and exact_match.
    """

    score = "val/acc"
    default_metrics = CLASSIFY

    class_weights: Tensor | None

    def __init__(self, network, optimizer, scheduler, num_labels: int, class_weights: Tensor | None = None, **options):
        self.num_labels = num_labels
        super().__init__(network, optimizer, scheduler, **options)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def available_metrics(self) -> dict[str, Callable[[], Metric]]:
        _, labels = self.torchmetrics()
        return {
            "acc": partial(MultilabelAccuracy, average="macro", **labels),
            "f1": partial(MultilabelF1Score, average="macro", **labels),
            "auroc": partial(MultilabelAUROC, average="macro", **labels),
        }

    def torchmetrics(self) -> tuple[dict[str, Callable[..., Metric]], dict[str, object]]:
        return named_metrics(classification, "Multilabel"), {"num_labels": self.num_labels, "validate_args": False}

    def trial(self) -> tuple[Tensor, Tensor, Tensor]:
        logits, target = trial_labels(self.num_labels)
        return logits, -logits, target

    def check_training(self) -> None:
        super().check_training()
        if self.criterion is not None:
            # A sample without labels costs a loss of classes nothing, and one of numbers as much by -10 as by 10.
            none = torch.zeros(self.num_labels + 1, self.num_labels)
            try_loss(self.criterion, none - 10, none + 10, none)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target.to(output.dtype))

    def own_loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.binary_cross_entropy_with_logits(output, target)
        of_zero, of_one = self.class_weights.to(output.dtype).T
        return F.binary_cross_entropy_with_logits(output, target, torch.where(target == 1, of_one, of_zero))

    def class_counts(self) -> ClassCounts:
        return ClassCounts(self.num_labels, 2)

    def label(self, target: Tensor) -> Tensor:
        return target.long()

    def answer(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def prediction(self, output: Tensor) -> Tensor:
        """Probabilities, since metrics would guess which of the two they are given."""
        return output.sigmoid()
