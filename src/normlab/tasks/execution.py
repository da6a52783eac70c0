"""Many steps in one call: what `steps_per_execution` puts in the place of Lightning's automatic optimization."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from normlab.tasks.guard import Guard

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def execute(
    task: LightningModule,
    batches: Iterable[Sequence[Tensor]],
    learn: Callable[[Sequence[Tensor]], bool],
    guard: Guard,
    scheduler: Any,
) -> None:
    """Steps through many batches as Lightning's automatic optimization does through one.

    learn: gives the parameters the gradients of a batch; false for one to leave out, which it asks `guard`. scheduler:
    where it is not None, each batch steps it.
    """
    optimizer = task.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, Optimizer)
    device, autocast = task.device, torch.is_autocast_enabled(task.device.type)
    convert = task.trainer.precision_plugin.convert_input
    progress = task.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for loaded in batches:
        batch = convert(_sent(loaded, device))
        optimizer.zero_grad()
        if learn(batch):
            guard.after_backward()
        else:
            optimizer.zero_grad()  # without gradients the step changes nothing
        if autocast:
            torch.clear_autocast_cache()  # the weights in it are stale after the step
        guard.before_step()
        progress.increment_ready()
        optimizer.step()
        progress.increment_completed()
        if scheduler is not None:
            scheduler.step()
        if progress.total.completed == task.trainer.max_steps:
            break


def _sent(batch: Sequence[Any], device: torch.device) -> tuple[Any, ...]:
    """A batch on its way to the device; its domain, a number, stays."""
    return tuple(each.to(device, non_blocking=True) if isinstance(each, Tensor) else each for each in batch)


def backward(loss: Tensor) -> None:
    """The backward pass. Lightning's autocast spans the whole of `execute`, but backward belongs outside."""
    kind = loss.device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        loss.backward()


def total_steps(task: LightningModule) -> int:
    """How many optimizer steps the run takes."""
    trainer = task.trainer
    if task.automatic_optimization:
        return int(trainer.estimated_stepping_batches)
    trainer.fit_loop.setup_data()
    assert trainer.train_dataloader is not None
    assert trainer.max_epochs is not None
    steps = trainer.train_dataloader.batches * trainer.max_epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
