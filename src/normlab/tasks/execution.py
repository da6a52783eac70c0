"""Many steps in one call: what `steps_per_execution` puts in the place of Lightning's automatic optimization."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from normlab.tasks.guard import Guard


def execute(
    task: LightningModule,
    batches: Iterable[Sequence[Tensor]],
    train: Callable[[Sequence[Tensor]], Tensor | None],
    guard: Guard,
    scheduler: Any,
) -> None:
    """Steps through many batches as Lightning's automatic optimization does through one.

    train: gives a batch's loss, or None for one to leave out, which it asks `guard`. scheduler: where it is not None,
    each batch steps it.
    """
    optimizer = task.optimizers(use_pl_optimizer=False)
    assert isinstance(optimizer, Optimizer)
    device, autocast = task.device, torch.is_autocast_enabled(task.device.type)
    convert = task.trainer.precision_plugin.convert_input
    progress = task.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tensors in batches:
        batch = convert(tuple(tensor.to(device, non_blocking=True) for tensor in tensors))
        loss = train(batch)
        optimizer.zero_grad()
        if loss is not None:  # without gradients the step changes nothing
            # Lightning's autocast spans the call, but backward belongs outside, and its cached weights are stale.
            with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
                loss.backward()
            guard.after_backward()
        if autocast:
            torch.clear_autocast_cache()
        guard.before_step()
        progress.increment_ready()
        optimizer.step()
        progress.increment_completed()
        if scheduler is not None:
            scheduler.step()
        if progress.total.completed == task.trainer.max_steps:
            break


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
