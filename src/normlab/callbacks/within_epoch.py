"""Saves a run within an epoch: now and then, and when a signal asks it to end.  python train.py save_every=10min"""

import math
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from normlab.callbacks.epoch_seed import seed_epoch
from normlab.config.interval import Interval
from normlab.data.common.seeds import kept_random_state, random_state, set_random_state
from normlab.distributed.collectives import everywhere, of_all
from normlab.distributed.interrupts import Interrupts
from normlab.folder.writing import remove


class WithinEpoch(Checkpoint):
    """Saves `within_epoch.ckpt` after a training batch: what last.ckpt has, and the epoch in progress.

    A run that goes on from it continues at the next batch and ends as if it had never been interrupted. It is saved
    every so often, and when `interrupts` says that a signal asked the run to end, which it then does. Several
    processes agree on that when they exchange whether their losses are finite. Between two batches that are
    accumulated for one step nothing is saved, nor where the length of an epoch is not known. In a validation, a single
    process is saved as it was before; several processes end it first.

    It is a Lightning `Checkpoint`, which comes after every other callback, whose states are then those after the batch.
    `Record` extends it, since a callback more would take longer in each step than all that this one does.
    """

    def __init__(self, seed: int, every: Interval | None, interrupts: Interrupts):
        self.seed, self.interrupts = seed, interrupts
        self.seconds = math.inf if every is None or every.seconds is None else every.seconds
        self.steps = None if every is None else every.steps
        self.next_time = math.inf
        self.saved_step = 0
        self.saving = self.ending = False
        self.before_validation: dict[str, Any] = {}  # the states of the random number generators
        self.resumed: dict[str, Any] | None = None  # the epoch in progress of the checkpoint that was loaded

    @abstractmethod
    def path(self, which: str) -> Path:
        """Where a checkpoint lies."""

    @abstractmethod
    def save(self, trainer: Trainer, which: str) -> None:
        """Saves the present state as a checkpoint; all processes call it."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.resumed = checkpoint.get("within_epoch")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.saving:
            return
        epoch: Any = trainer.fit_loop.epoch_loop
        checkpoint["within_epoch"] = {
            "batches": epoch.batch_progress.current.processed,
            "of": trainer.num_training_batches,
            "processes": of_all(self._own_state(trainer, pl_module)),
        }
        if trainer.validating or epoch.batch_progress.is_last_batch:
            _begin_with_validation(checkpoint["loops"]["fit_loop"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.next_time = time.monotonic() + self.seconds
        self.saved_step = trainer.global_step
        pl_module.guard.asks = self._asks  # pyright: ignore
        self.interrupts.patient = True
        if self.resumed is not None:
            self._go_on(trainer, pl_module, self.resumed)
            self.resumed = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_asked(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.ending:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if _validation_may_follow(trainer):
            self.before_validation = random_state(pl_module.device)
        guard: Any = pl_module.guard
        due = self.steps is not None and trainer.global_step >= self.saved_step + self.steps
        if not (due or guard.asked) or not _can_save(trainer):
            return
        guard.asked = False
        self._save_within(trainer)
        self.ending = not everywhere(self.interrupts.asked is None, pl_module.device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.ending:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        asked = self.interrupts.patient and self.interrupts.asked is not None
        if asked and trainer.world_size == 1 and _can_save(trainer):
            self._save_within(trainer)
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step, self.next_time = trainer.global_step, time.monotonic() + self.seconds
        if trainer.is_global_zero:
            remove(self.path("within_epoch"))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.interrupts.patient = False
        self._end_if_asked(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.interrupts.patient = False

    def _asks(self) -> bool:
        """Whether this process wants the run to be saved after this batch."""
        return self.interrupts.asked is not None or time.monotonic() >= self.next_time

    def _end_if_asked(self, trainer: Trainer) -> None:
        """Ends the run at the end of an epoch, which was just saved."""
        if not everywhere(self.interrupts.asked is None, trainer.strategy.root_device):
            raise KeyboardInterrupt

    def _save_within(self, trainer: Trainer) -> None:
        self.saving = True
        try:
            self.save(trainer, "within_epoch")
        finally:
            self.saving = False
        self.saved_step, self.next_time = trainer.global_step, time.monotonic() + self.seconds

    def _own_state(self, trainer: Trainer, task: Any) -> dict[str, Any]:
        """What this process alone knows of the epoch in progress."""
        return {
            "random": self.before_validation if trainer.validating else random_state(task.device),
            "epoch": task.epoch_state(),
            # Statistics that are not synchronised differ from process to process until the epoch ends.
            "buffers": {} if trainer.world_size == 1 else _on_cpu(dict(task.network.named_buffers())),
        }

    def _go_on(self, trainer: Trainer, task: Any, saved: dict[str, Any]) -> None:
        """Puts the epoch in progress back, and lets the loader go on at the next batch."""
        own = saved["processes"][trainer.global_rank]
        task.load_epoch_state(own["epoch"])
        for name, buffer in task.network.named_buffers():
            if name in own["buffers"]:
                buffer.copy_(own["buffers"][name])
        epoch, rank = trainer.current_epoch, trainer.global_rank

        @contextmanager
        def as_at_its_start() -> Iterator[None]:
            with kept_random_state(task.device):
                seed_epoch(self.seed, epoch, rank)
                yield

        if saved["batches"] < saved["of"]:
            trainer.train_dataloader.begin(saved["batches"], as_at_its_start)  # pyright: ignore
        set_random_state(own["random"], task.device)


def _validation_may_follow(trainer: Trainer) -> bool:
    """Whether this batch may be followed by a validation. Lightning's own answer takes a tenth of a small step."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    every = trainer.val_check_batch  # None where the clock decides
    return progress.is_last_batch or every is None or progress.current.ready % every == 0


def _can_save(trainer: Trainer) -> bool:
    """Whether the run could go on from here within its epoch.

    Where the epoch's training ends early, as at trainer.max_steps, the checkpoint of its end is about to be written.
    """
    loop = trainer.fit_loop.epoch_loop
    known = math.isfinite(trainer.num_training_batches)
    ends_early = trainer.should_stop or trainer.global_step == trainer.max_steps
    return known and not ends_early and not loop._should_accumulate()


def _begin_with_validation(progress: dict[str, Any]) -> None:
    """Lets Lightning go on with the validation, from its first batch, which follows the batch that was trained on.

    progress: the state of its fit loop. Saved after a batch, the batch counts as not completed, and Lightning would
    then leave out the validation; saved within a validation, it would go on in its middle, without its first metrics.
    """
    batches = progress["epoch_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        counts["completed"] = counts["processed"]
    validated = progress["epoch_loop.val_loop.batch_progress"]
    for counts in (validated["total"], validated["current"]):
        counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validated["is_last_batch"] = False


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.clone(tensor.detach().cpu()) for name, tensor in tensors.items()}
