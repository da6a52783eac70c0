"""The base of every task: steps, epoch metrics, optimizer and schedule."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection

from normlab.data.common.loaders import Chunks
from normlab.distributed.collectives import everywhere
from normlab.distributed.shards import is_cut
from normlab.errors import PeerError, is_library
from normlab.norms.domain import set_domain
from normlab.tasks.losses import Loss, try_loss
from normlab.tasks.meter import ClassCounts, Meter
from normlab.tasks.metrics import Entry, is_scalar, make_metric
from normlab.tasks.nonfinite import REMEDY, Guard, Policy, explain, first_cause
from normlab.tasks.optimizers import parameter_groups, try_optimizer
from normlab.tasks.schedulers import Schedule


class Task(LightningModule):
    """Trains any `nn.Module` on batches (x, y), or (x, y, domain).

    optimizer: a partial that takes parameters. criterion: the mean loss of (output, target) in place of the task's own,
    numbers come to it standardised. metrics: names, and classes of torchmetrics with their keys. scheduler: a
    `Schedule`, or what it makes the scheduler by.
    steps_per_execution: with more than 1, training batches come in chunks, which are stepped through within one
    `training_step`; weights, metrics and schedule are those of single steps. nonfinite: what a training batch with a
    loss of NaN or inf does: weights and statistics stay as before it, and `raise` ends the run, `stop` ends training
    as if it were done, `skip` goes on without the batch. As under GradScaler, the whole step that it was accumulated
    for is left out, and the schedule takes the step; metrics are those of the other batches. In validation and test
    such a loss always ends the run.
    Raises ValueError for an unknown metric, FloatingPointError for what is not finite.
    """

    score: ClassVar[str]  # the metric that picks the best checkpoint
    default_metrics: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Schedule | Callable[..., Any],
        metrics: Sequence[Entry] | None = None,
        criterion: Loss | None = None,
        steps_per_execution: int = 1,
        nonfinite: Policy = "raise",
    ):
        super().__init__()
        self.network = network
        self.guard = Guard(network, nonfinite, self._where)
        self.make_optimizer = optimizer
        self.schedule = scheduler if isinstance(scheduler, Schedule) else Schedule(scheduler)
        if self.schedule.looks and self.schedule.monitor is None:
            self.schedule.monitor = self.score
        self.validated = False  # whether this epoch had a validation
        self.automatic_optimization = steps_per_execution == 1
        self.criterion = criterion
        chosen = self.default_metrics if metrics is None else metrics
        made = dict(make_metric(entry, self.available_metrics(), *self.torchmetrics()) for entry in chosen)
        collection = MetricCollection(made)  # pyright: ignore[reportArgumentType]
        self.measures = {*made}
        self.tables: dict[str, dict[str, Tensor]] = {}  # what is no single number, by stage, as last measured
        self.train_meter = Meter(collection.clone(), self.prediction)
        self.val_meter = Meter(collection.clone(), self.prediction, self.class_counts())
        self.test_meter = Meter(collection.clone(), self.prediction, self.class_counts())
        self.majority: dict[str, float] = {}  # share of the most frequent class in val and test, as last measured

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes here which hook it calls, 48 times a step. nn.Module would look for parameters each time:
        # that takes a tenth of a small network's step (benchmarks/steps.py).
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

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
        """The network's output for a person: probabilities (N, classes), or the target in its own units."""

    def class_counts(self) -> ClassCounts | None:
        """A metric that counts the classes of an epoch; None where targets are no classes."""
        return None

    def label(self, target: Tensor) -> Tensor:
        """A batch's target in the form that metrics take."""
        return target

    def metric_names(self) -> list[str]:
        """The names that an epoch logs, in the order of metrics.csv."""
        names = self._scalars()
        return [f"{stage}/{name}" for stage in ("train", "val") for name in names]

    def direction(self, score: str) -> str:
        """`max` or `min`: which end of a validation metric is the good one. Raises ValueError where none is known."""
        self.check_score(score)
        name = score.removeprefix("val/")
        higher = name != "loss" and self.val_meter.metrics[name].higher_is_better
        if higher is None:
            raise ValueError(f"score={score}: which end of it is the good one is not known; set score_mode=max or min")
        return "max" if higher else "min"

    def check_score(self, score: str) -> None:
        """Raises ValueError for a metric that no validation measures."""
        stage, _, name = score.partition("/")
        if stage != "val" or name not in self._scalars():
            known = ", ".join(f"val/{name}" for name in self._scalars())
            raise ValueError(f"score={score}: expected one of {known}")

    def _scalars(self) -> list[str]:
        return ["loss", *(str(name) for name in self.train_meter.metrics if name not in self.table_metrics)]

    @cached_property
    def table_metrics(self) -> set[str]:
        """The metrics that are no single number. Raises ValueError for one that cannot measure this task."""
        right, _, target = self.trial()
        prediction, scalars = self.prediction(right), self.available_metrics()
        others = {name: metric for name, metric in self.val_meter.metrics.items() if name not in scalars}
        return {name for name, metric in others.items() if not is_scalar(name, metric, prediction, target)}

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def set_domain(self, domain: int | Tensor) -> None:
        """The domain that the next batches come from, for `norm=domain`: a number, or a number for each sample.

        Batches (x, target, domain) set it themselves. Raises ValueError for a batch of several domains.
        """
        values = torch.as_tensor(domain).unique().tolist()
        if len(values) != 1:
            raise ValueError(f"a batch holds samples of domains {values}: take each batch from one domain")
        set_domain(self.network, values[0])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        if self.automatic_optimization:
            loss = self._train(batch)
            if self.trainer.world_size == 1:
                return loss
            if loss is None:  # it is None in all processes; Lightning wants a loss, and the step is left out
                return torch.stack([p.sum() for p in self.network.parameters() if p.requires_grad]).sum() * 0
            return loss * self.trainer.train_dataloader.weight(batch_idx)  # pyright: ignore
        self._execute(batch)
        return None

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch, self.val_meter)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_meter)

    def predict_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor | None, str | None]:
        """The answers to a batch (x, …), or to x alone; its target; and why an answer is not finite, if one is not."""
        x, *rest = batch if isinstance(batch, list | tuple) else (batch,)
        target = rest[0] if rest else None
        output = self._output(x, rest[1:])
        wrong = None if torch.isfinite(output).all() else explain(self.network, x, x)
        return self.answer(output), target, wrong

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Lets the optimizer step, unless one of the batches that were accumulated for the step was left out.

        A closure that answers None tells Lightning that there was no backward pass. A gradient scaler then neither
        steps nor moves its scale: without gradients it would have nothing to look for inf in, and would raise.
        """
        assert optimizer_closure is not None
        backward = optimizer_closure

        def closure() -> Any:
            loss = backward()
            return None if self.guard.spoiled else loss

        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.guard.spoiled:  # one of the batches accumulated for this step was left out
            optimizer.zero_grad()
            self.guard.spoiled = False

    def on_train_epoch_start(self) -> None:
        self.train_meter.reset()
        self.validated = False
        self.guard.begin_epoch()

    def on_validation_epoch_start(self) -> None:
        self.guard.check_state()
        self.val_meter.reset()

    def on_test_epoch_start(self) -> None:
        self.test_meter.reset()

    def on_train_epoch_end(self) -> None:
        self.guard.end_epoch()
        self.guard.check_state()
        if self.guard.trained:
            self._log("train", self.train_meter)
        if self.schedule.interval == "epoch":
            self._step_schedule()

    def on_validation_epoch_end(self) -> None:
        self._log("val", self.val_meter)
        self.validated = True

    def on_test_epoch_end(self) -> None:
        self._log("test", self.test_meter)

    def check_training(self) -> None:
        """Raises ValueError for a loss, an optimizer or a schedule that cannot be made, or not be used here."""
        if self.criterion is not None:
            try_loss(self.criterion, *self.trial())
        optimizer = try_optimizer(self.make_optimizer, self.network)
        try:
            self.schedule.build(optimizer, total_steps=1000, direction=self.direction)
        except (TypeError, ValueError, RuntimeError) as error:
            if not is_library(self.schedule.made):
                raise
            raise ValueError(f"scheduler: {error}".replace("scheduler: scheduler.", "scheduler.")) from error

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(parameter_groups(self.network))
        scheduler = self.schedule.build(optimizer, self._total_steps(), self.direction)
        if scheduler is None:
            return optimizer
        plan: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if self.automatic_optimization:
            plan["reduce_on_plateau"] = False  # `_step_schedule` tells it the metric
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # called by Lightning after each step
        if self.schedule.interval == "step":
            scheduler.step()

    def _step_schedule(self) -> None:
        """Steps the schedule. Lightning would do it after the checkpoint is saved, and a resumed run lack the step."""
        scheduler: Any = self.lr_schedulers()
        if scheduler is None:
            return
        if self.schedule.monitor is None:
            scheduler.step()
        elif self.validated:
            scheduler.step(float(self.trainer.callback_metrics[self.schedule.monitor]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skipped"] = self.guard.skipped
        checkpoint["lr_schedulers"] = [self.schedule.progress(state) for state in checkpoint["lr_schedulers"]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.skipped = checkpoint.get("skipped", 0)
        checkpoint["lr_schedulers"] = [self.schedule.progress(state) for state in checkpoint["lr_schedulers"]]

    def _where(self) -> str:
        return f"epoch {self.current_epoch}, step {self.trainer.global_step}"

    def _train(self, batch: Sequence[Tensor]) -> Tensor | None:
        """The loss of a training batch; None for a batch to leave out."""
        self.guard.remember()
        output, loss = self._step(batch)
        if self.guard.passes(loss, batch[0], batch[1]):
            self.train_meter.update(loss, output, self.label(batch[1]))
            return loss
        self.trainer.should_stop |= self.guard.policy == "stop"
        return None

    def _evaluate(self, stage: str, batch: Sequence[Tensor], meter: Meter) -> None:
        x, target = batch[0], batch[1]
        cut = is_cut(self.network)  # a cut network must be called by all processes or by none
        if len(target):
            output, loss = self._step(batch)
            meter.update(loss, output, self.label(target))
        elif cut:  # a last batch with fewer samples than processes gives this one none
            x, loss = x.new_zeros(2, *x.shape[1:]), x.new_zeros(())
            self.network(x)
        else:
            return
        value = loss.item()
        finite = math.isfinite(value)
        if everywhere(finite, loss.device) if cut else finite:
            return
        symptom = f"{stage}/loss is {value} in {self._where()}"
        if not cut:
            raise FloatingPointError(f"{symptom}: {explain(self.network, x, target)}")
        cause, own = first_cause(symptom, finite, self.network, x, target)
        if not own:
            raise PeerError(f"{stage}/loss of another process is not finite in {self._where()}")
        raise FloatingPointError(cause)

    def _step(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The network's output and its loss."""
        x, target, *domain = batch
        output = self._output(x, domain)
        return output, self.loss(output, target)

    def _output(self, x: Tensor, domain: Sequence[Tensor]) -> Tensor:
        if domain:
            self.set_domain(domain[0])
        output = self.network(x)
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output

    def _execute(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Steps through many batches as Lightning's automatic optimization does through one."""
        optimizer, scheduler = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimizer, Optimizer)
        device, autocast = self.device, torch.is_autocast_enabled(self.device.type)
        convert = self.trainer.precision_plugin.convert_input
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for tensors in batches:
            batch = convert(tuple(tensor.to(device, non_blocking=True) for tensor in tensors))
            loss = self._train(batch)
            optimizer.zero_grad()
            if loss is not None:  # without gradients the step changes nothing
                # Lightning's autocast spans the call, but backward belongs outside, and its cached weights are stale.
                with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
                    loss.backward()
            if autocast:
                torch.clear_autocast_cache()
            progress.increment_ready()
            optimizer.step()
            progress.increment_completed()
            if scheduler is not None and self.schedule.interval == "step":
                scheduler.step()  # pyright: ignore
            if progress.total.completed == self.trainer.max_steps:
                break

    def _log(self, stage: str, meter: Meter) -> None:
        values = {f"{stage}/{name}": value for name, value in meter.compute().items()}
        if not torch.isfinite(values[f"{stage}/loss"]):  # a sum of finite losses may still overflow
            raise FloatingPointError(f"{stage}/loss is {values[f'{stage}/loss'].item()} in {self._where()}; {REMEDY}")
        self.tables[stage] = {name: values.pop(f"{stage}/{name}").cpu() for name in self.table_metrics}
        self.log_dict(values)
        if (majority := meter.majority()) is not None:
            self.majority[stage] = majority

    def _total_steps(self) -> int:
        """How many optimizer steps the run takes."""
        if self.automatic_optimization:
            return int(self.trainer.estimated_stepping_batches)
        self.trainer.fit_loop.setup_data()
        chunks = self.trainer.train_dataloader
        assert isinstance(chunks, Chunks)
        assert self.trainer.max_epochs is not None
        steps = chunks.batches * self.trainer.max_epochs
        return steps if self.trainer.max_steps == -1 else min(steps, self.trainer.max_steps)
