"""What the metrics of a run are called, known without torch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What the tasks measure where task.metrics is null.
CLASSIFY, REGRESS = ("acc", "f1"), ("mse", "mae", "r2")


def metric_name(metric: str | Mapping[str, Any]) -> str:
    """What an entry of task.metrics is called in tables: a name as it is, a class by its own name in small letters.

    {_target_: torchmetrics.classification.MulticlassFBetaScore, beta: 2} is f_beta_score.
    """
    return metric if isinstance(metric, str) else small(str(metric["_target_"]).rpartition(".")[2])


def small(class_name: str) -> str:
    """MulticlassPrecision → precision, MeanAbsolutePercentageError → mean_absolute_percentage_error."""
    name = re.sub(r"^(Multiclass|Multilabel)(?=[A-Z])", "", class_name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def measured(metrics: Sequence[str | Mapping[str, Any]] | None) -> list[str]:
    """The names of what is measured of each part of the data, the loss included. metrics: task.metrics."""
    return ["loss", *((*CLASSIFY, *REGRESS) if metrics is None else map(metric_name, metrics))]
