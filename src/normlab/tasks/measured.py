"""What a task measures in an epoch, what it logs of it, and which end of a number is the good one."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from normlab.tasks.contract import Contract
from normlab.tasks.looks import Looks, Sent, on_host
from normlab.tasks.meter import Meter
from normlab.tasks.metrics import Entry, is_scalar, make_metric
from normlab.tasks.nonfinite import REMEDY

MAJORITY = "the share of the most frequent class"  # is no metric's name


class Measured(Contract):
    """A network and, for each stage, a meter of its loss and of the metrics that were chosen.

    metrics: names, and classes of torchmetrics with their keys; None: the task's `default_metrics`. Raises ValueError
    for an unknown one.
    """

    def __init__(self, network: nn.Module, metrics: Sequence[Entry] | None):
        super().__init__()
        self.network = network
        chosen = self.default_metrics if metrics is None else metrics
        made = dict(make_metric(entry, self.available_metrics(), *self.torchmetrics()) for entry in chosen)
        collection = MetricCollection(made)  # pyright: ignore[reportArgumentType]
        self.measures = {*made}
        self.tables: dict[str, dict[str, Tensor]] = {}  # what is no single number, by stage, as last measured
        self.train_meter = Meter(collection.clone(), self.prediction)
        self.val_meter = Meter(collection.clone(), self.prediction, self.class_counts())
        self.test_meter = Meter(collection.clone(), self.prediction, self.class_counts())
        self.majority: dict[str, float] = {}  # share of the most frequent class in val and test, as last measured
        self.looks = Looks()  # at what evaluation and the end of an epoch have measured

    @cached_property
    def table_metrics(self) -> set[str]:
        """The metrics that are no single number. Raises ValueError for one that cannot measure this task."""
        right, _, target = self.trial()
        prediction, label, scalars = self.prediction(right), self.label(target), self.available_metrics()
        others = {name: metric for name, metric in self.val_meter.metrics.items() if name not in scalars}
        return {name for name, metric in others.items() if not is_scalar(name, metric, prediction, label)}

    def metric_names(self) -> list[str]:
        """The names that an epoch logs, in the order of metrics.csv."""
        names = self._scalars()
        return [f"{stage}/{name}" for stage in ("train", "val") for name in names]

    def check_score(self, score: str) -> None:
        """Raises ValueError for a metric that no validation measures."""
        stage, _, name = score.partition("/")
        if stage != "val" or name not in self._scalars():
            known = ", ".join(f"val/{name}" for name in self._scalars())
            raise ValueError(f"score={score}: expected one of {known}")

    def direction(self, score: str) -> str:
        """`max` or `min`: which end of a validation metric is the good one. Raises ValueError where none is known."""
        self.check_score(score)
        name = score.removeprefix("val/")
        higher = name != "loss" and self.val_meter.metrics[name].higher_is_better
        if higher is None:
            raise ValueError(f"score={score}: which end of it is the good one is not known; set score_mode=max or min")
        return "max" if higher else "min"

    def log_epoch(self, stage: str, meter: Meter) -> None:
        """Logs a stage's numbers and keeps its tables. Raises FloatingPointError for a loss that is not finite."""
        measured = meter.compute()
        tables = {name: Sent(measured.pop(name)).arrived() for name in self.table_metrics}
        majority = meter.majority()
        values = on_host(measured | ({} if majority is None else {MAJORITY: majority}))
        share = values.pop(MAJORITY, None)
        loss = values["loss"]
        if not torch.isfinite(loss):  # a sum of finite losses may still overflow
            raise FloatingPointError(f"{stage}/loss is {loss.item()} in {self.place()}; {REMEDY}")
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()})
        if self.trainer.sanity_checking:  # of a few batches
            return
        self.tables[stage] = tables
        if share is not None:
            self.majority[stage] = share.item()

    def place(self) -> str:
        """Where in its training the task is, for messages."""
        return f"epoch {self.current_epoch}, step {self.trainer.global_step}"

    def _scalars(self) -> list[str]:
        return ["loss", *(str(name) for name in self.train_meter.metrics if name not in self.table_metrics)]
