"""The base of every task: how it steps through batches, with which optimizer and schedule."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.data.common.domains import domain_of
from normlab.distributed.shards import is_cut
from normlab.norms.domain import set_domain
from normlab.tasks.execution import Step, backward, execute, total_steps
from normlab.tasks.freezing import FrozenPart
from normlab.tasks.guard import Guard, Policy
from normlab.tasks.losses import Loss, try_loss
from normlab.tasks.measured import Measured
from normlab.tasks.meter import Meter
from normlab.tasks.metrics import Entry
from normlab.tasks.nonfinite import check_loss, explain
from normlab.tasks.optimizers import fuse, parameter_groups, rate, try_optimizer
from normlab.tasks.schedulers import Schedule, try_schedule

if TYPE_CHECKING:  # imports torch's compiler
    from normlab.tasks.one_graph import OneGraph


class Task(Measured):
    """Trains any `nn.Module` on batches (x, y), or (x, y, domain).

    optimizer: a partial that takes parameters. criterion: the mean loss of (output, target) in place of the task's own,
    numbers come to it standardised. metrics: names, and classes of torchmetrics with their keys. scheduler: a
    `Schedule`, or what it makes the scheduler by.
    steps_per_execution: with more than 1, training batches come in chunks, which are stepped through within one
    `training_step`; weights, metrics and schedule are those of single steps. nonfinite: what a training batch with a
    loss of NaN or inf does: weights and statistics stay as before it, and `raise` ends the run, `stop` ends training
    as if it were done, `skip` goes on without the batch. As under GradScaler, the whole step that it was accumulated
    for is left out, and the schedule takes the step; metrics are those of the other batches. In validation and test
    such a loss always ends the run. layer_decay, thawing, norm_bias_scale: see `parameter_groups`.
    Raises ValueError for an unknown metric, FloatingPointError for what is not finite.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Schedule | Callable[..., Any],
        metrics: Sequence[Entry] | None = None,
        criterion: Loss | None = None,
        steps_per_execution: int = 1,
        nonfinite: Policy = "raise",
        layer_decay: float | None = None,
        thawing: FrozenPart | None = None,
        norm_bias_scale: float | None = None,
    ):
        super().__init__(network, metrics)
        self.guard = Guard(network, nonfinite, self.place)
        self.make_optimizer = optimizer
        self.layer_decay, self.thawing, self.norm_bias_scale = layer_decay, thawing, norm_bias_scale
        self.schedule = scheduler if isinstance(scheduler, Schedule) else Schedule(scheduler)
        if self.schedule.looks and self.schedule.monitor is None:
            self.schedule.monitor = self.score
        self.validated = False  # whether this epoch had a validation
        self.automatic_optimization = steps_per_execution == 1
        self.graph: OneGraph | None = None  # a step with its backward pass, compiled
        self.criterion = criterion

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes here which hook it calls, 48 times a step. nn.Module would look for parameters each time:
        # that takes a tenth of a small network's step (benchmarks/steps.py).
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def set_domain(self, domain: int | Tensor) -> None:
        """The domain that the next batches come from, for `norm=domain`: a number, or a number for each sample.

        Batches (x, target, domain) set it themselves. Raises ValueError for a batch of several domains.
        """
        set_domain(self.network, domain_of(domain))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        if self.automatic_optimization:
            loss = self._train(batch, self._step)
            if self.trainer.world_size == 1:
                return loss
            if loss is None:  # it is None in all processes; Lightning wants a loss, and the step is left out
                return torch.stack([p.sum() for p in self.network.parameters() if p.requires_grad]).sum() * 0
            return loss * self.trainer.train_dataloader.weight(batch_idx)  # pyright: ignore
        scheduler = self.lr_schedulers() if self.schedule.interval == "step" else None
        with nullcontext() if self.graph is None else self.graph.traced():
            execute(self, batch, self._learn, self.guard, scheduler)
        return None

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch, self.val_meter)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch, self.test_meter)

    def predict_step(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor | None, str | None]:
        """The answers to a batch (x, …), or to x alone; its target; and why an answer is not finite, if one is not."""
        x, *rest = batch if isinstance(batch, list | tuple) else (batch,)
        target = rest[0] if rest else None
        self._enter(rest[1:])
        output = self._output(x)
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

    def on_after_backward(self) -> None:
        self.guard.after_backward()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.guard.before_step()
        if self.guard.spoiled:  # one of the batches accumulated for this step was left out
            optimizer.zero_grad()
            self.guard.spoiled = False

    def on_train_start(self) -> None:
        self.guard.begin(self.trainer.optimizers)

    def on_train_epoch_start(self) -> None:
        self.train_meter.reset()
        self.validated = False
        self.guard.begin_epoch()

    def epoch_state(self) -> dict[str, Any]:
        """What the epoch in progress has measured and counted, in tensors and plain values."""
        self.guard.settle()
        return {"meter": self.train_meter.state(), "guard": self.guard.epoch_state()}

    def load_epoch_state(self, state: dict[str, Any]) -> None:
        """Goes on with an epoch in place of `on_train_epoch_start`."""
        self.on_train_epoch_start()
        self.train_meter.load_state(state["meter"])
        self.guard.load_epoch_state(state["guard"])

    def on_validation_epoch_start(self) -> None:
        self.guard.settle()
        self.guard.check_state(self.looks)
        self.val_meter.reset()

    def on_test_epoch_start(self) -> None:
        self.test_meter.reset()

    def on_train_epoch_end(self) -> None:
        self.guard.end_epoch()
        self.guard.check_state(self.looks)
        self.looks.settle()
        if self.guard.trained:
            self.log_epoch("train", self.train_meter)
        if self.schedule.interval == "epoch":
            self._step_schedule()

    def on_validation_epoch_end(self) -> None:
        self.looks.settle()
        self.log_epoch("val", self.val_meter)
        self.validated = True

    def on_test_epoch_end(self) -> None:
        self.looks.settle()
        self.log_epoch("test", self.test_meter)

    def check_training(self) -> None:
        """Raises ValueError for a loss, an optimizer or a schedule that cannot be made, or not be used here."""
        if self.criterion is not None:
            try_loss(self.criterion, *self.trial())
        try_schedule(self.schedule, try_optimizer(self.make_optimizer, self._groups()), self.direction)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self._groups())
        fuse(optimizer, self.network)
        scheduler = self.schedule.build(optimizer, total_steps(self), self.direction)
        if scheduler is None:
            return optimizer
        plan: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if self.automatic_optimization:
            plan["reduce_on_plateau"] = False  # `_step_schedule` tells it the metric
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def _groups(self) -> list[dict[str, Any]]:
        lr = rate(self.make_optimizer)
        return parameter_groups(self.network, None, self.layer_decay, lr, self.thawing, self.norm_bias_scale)

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
        self.guard.settle()
        checkpoint["skipped"] = self.guard.skipped
        # A run that goes on after its last epoch measures no validation any more.
        checkpoint["measured"] = {"majority": self.majority, "tables": self.tables}
        checkpoint["lr_schedulers"] = [self.schedule.progress(state) for state in checkpoint["lr_schedulers"]]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.guard.skipped = checkpoint["skipped"]
        self.majority, self.tables = checkpoint["measured"]["majority"], checkpoint["measured"]["tables"]
        checkpoint["lr_schedulers"] = [self.schedule.progress(state) for state in checkpoint["lr_schedulers"]]

    def compile_steps(self) -> None:
        """Lets `steps_per_execution` make a batch's passes forward and backward by one compiled graph."""
        from normlab.tasks.one_graph import OneGraph  # with torch's compiler, which takes a second

        self.graph = OneGraph(self._step)

    def _learn(self, batch: Sequence[Tensor]) -> bool:
        """Gives the parameters the gradients of a training batch; false for a batch to leave out."""
        if self.graph is not None:
            return self._train(batch, self.graph) is not None
        loss = self._train(batch, self._step)
        if loss is not None:
            backward(loss)
        return loss is not None

    def _train(self, batch: Sequence[Tensor], step: Step) -> Tensor | None:
        """The loss of a training batch; None for a batch to leave out."""
        self.guard.remember()
        self._enter(batch[2:])
        output, loss = step(batch[0], batch[1])
        keep = partial(self.train_meter.update, loss.detach(), output.detach(), self.label(batch[1]))
        passes = self.guard.passes(loss, batch[0], batch[1], keep)
        self.trainer.should_stop |= not passes and self.guard.policy == "stop"
        return loss if passes else None

    def _evaluate(self, stage: str, batch: Sequence[Tensor], meter: Meter) -> None:
        x, target = batch[0], batch[1]
        if len(target):
            self._enter(batch[2:])
            output, loss = self._step(x, target)
            meter.update(loss, output, self.label(target))
        elif is_cut(self.network):  # all processes must call it; a short last batch may give this one no sample
            x, loss = x.new_zeros(2, *x.shape[1:]), x.new_zeros(())
            self.network(x)
        else:
            return
        check_loss(self.looks, loss, self.network, x, target, stage, self.place())

    def _step(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The network's output and its loss."""
        output = self._output(x)
        return output, self.loss(output, target)

    def _enter(self, domain: Sequence[int | Tensor]) -> None:
        """Sets the domain of a batch that says it."""
        if domain:
            self.set_domain(domain[0])

    def _output(self, x: Tensor) -> Tensor:
        output = self.network(x)
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
