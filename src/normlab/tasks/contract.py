"""What each kind of task says of itself: its losses, its metrics and its answers."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from lightning import LightningModule
from torch import Tensor
from torchmetrics import Metric

from normlab.tasks.losses import Loss
from normlab.tasks.meter import ClassCounts


class Contract(LightningModule):
    """What `normlab.tasks.base.Task` asks of a task, such as `Classify` and `Regress`."""

    score: ClassVar[str]  # the metric that picks the best checkpoint
    default_metrics: ClassVar[tuple[str, ...]]
    criterion: Loss | None  # takes the place of the task's own loss

    @abstractmethod
    def available_metrics(self) -> dict[str, Callable[[], Metric]]:
        """The metrics by name."""

    @abstractmethod
    def torchmetrics(self) -> tuple[Mapping[str, Callable[..., Metric]], Mapping[str, object]]:
        """Metrics of torchmetrics that fit the task, by name, and what those are given that take it."""

    @abstractmethod
    def trial(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs that answer well, others that answer badly, and the targets: losses and metrics are tried on them."""

    @abstractmethod
    def own_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch where no other was chosen; `output` (N, out_features) float32."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean loss of a batch; `output` (N, out_features) float32."""
        return (self.criterion or self.own_loss)(output, target)

    @abstractmethod
    def prediction(self, output: Tensor) -> Tensor:
        """The network's output in the form that metrics take."""

    @abstractmethod
    def answer(self, output: Tensor) -> Tensor:
        """The network's output for a person: probabilities (N, classes), those of labels (N, columns), or numbers."""

    def class_counts(self) -> ClassCounts | None:
        """A metric that counts the classes of an epoch; None where targets are no classes."""
        return None

    def label(self, target: Tensor) -> Tensor:
        """A batch's target in the form that metrics take."""
        return target
