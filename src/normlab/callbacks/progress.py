"""Shows the progress of a training: a live bar on a terminal, a line every ten seconds elsewhere."""

import logging
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from normlab.logs import console, is_quiet

log = logging.getLogger(__name__)

REFRESH, LINE = 0.1, 10.0  # seconds between two refreshes of the bar, and between two lines


class TrainingProgress(Callback):
    """Shows epochs, batches, metrics and the time left; train.log always gets a line for each epoch."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.next_time = 0.0
        self.epoch_start = 0.0
        self.finished_epoch = ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.next_time = time.monotonic() + LINE
        if console.is_terminal and not is_quiet():
            self.next_time = 0.0
            text = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
            columns = (BarColumn(30), TimeRemainingColumn(), text)
            self.bar = Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
            self.bar.add_task("", total=None)
            self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.monotonic()
        if now < self.next_time:
            return
        done, total = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.num_training_batches
        if self.bar is None:
            if now < self.epoch_start + LINE:
                return  # a short epoch is shown when it ends, with its metrics
            self.next_time = now + LINE
            log.info(f"{_epoch(trainer)}, batch {done}/{total}")
            return
        self.next_time = now + REFRESH
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        self.bar.update(
            self.bar.task_ids[0],
            description=f"{_epoch(trainer)}{_metrics(trainer)}",
            completed=trainer.current_epoch * total + done,
            total=epochs and epochs * total,
            refresh=True,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The metrics are complete by the next hook: the task logs after the callbacks.
        self.finished_epoch = _epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_start = time.monotonic()
        self._line(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        self.next_time = 0.0
        self._line(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _line(self, trainer: Trainer) -> None:
        if not self.finished_epoch:
            return
        now = time.monotonic()
        due = self.bar is None and now >= self.next_time
        if due:
            self.next_time = now + LINE
        log.log(logging.INFO if due else logging.DEBUG, self.finished_epoch + _metrics(trainer))
        self.finished_epoch = ""

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _epoch(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else "")


def _metrics(trainer: Trainer) -> str:
    in_order = sorted(trainer.callback_metrics.items(), key=lambda item: not item[0].startswith("train/"))
    return "".join(f", {name} {float(value):.4g}" for name, value in in_order)
