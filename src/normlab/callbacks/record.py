"""Saves the end of each epoch: a row in metrics.csv, then the last and the best checkpoint."""

import csv
import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from normlab.callbacks.loggers.going_on import go_on
from normlab.callbacks.within_epoch import WithinEpoch
from normlab.errors import WriteError
from normlab.folder.files import read_rows, whole_rows
from normlab.folder.keep import kept_after
from normlab.folder.pace import Pace
from normlab.folder.place import shown
from normlab.folder.writing import append_line, copy_whole, write_text

log = logging.getLogger(__name__)


class MetricsTable:
    """metrics.csv, one row an epoch. A metric that turns up later adds a column."""

    def __init__(self, file: Path, columns: Sequence[str]):
        self.file, self.columns = file, list(columns)

    def truncate(self, epoch: int) -> None:
        """Keeps the rows before `epoch`, where training starts again."""
        rows = [row for row in whole_rows(self.file) if int(row["epoch"]) < epoch]
        self._add_columns(rows[0] if rows else ())
        self._rewrite(rows)

    def last_metrics(self) -> dict[str, float]:
        """The epoch and its metrics from the last row, if there is one."""
        row = next(iter(read_rows(self.file)[-1:]), {})
        named = {name: value for name, value in row.items() if value and name.startswith(("epoch", "train/", "val/"))}
        return {name: float(value) for name, value in named.items()}

    def append(self, row: dict[str, Any], sync: bool = True) -> None:
        """Adds a row. sync: whether it is on the disk when this returns."""
        if row.keys() <= set(self.columns):
            line = io.StringIO()
            self._writer(line).writerow(row)
            append_line(self.file, line.getvalue(), sync)
            return
        self._add_columns(row)
        self._rewrite([*read_rows(self.file), row])

    def _add_columns(self, names: Iterable[str]) -> None:
        self.columns += [name for name in names if name not in self.columns]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.file, text.getvalue())

    def _writer(self, lines: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(lines, self.columns, restval="", lineterminator="\n")


class Record(WithinEpoch):
    """Writes the row before the checkpoints: a run killed in between repeats the epoch and rewrites its row.

    It is a Lightning `Checkpoint`, which comes after every other callback and sees what they logged. Lightning's
    ModelCheckpoint would not do: its `last` stays behind when the score does not improve, and it forgets the best one
    when the folder is moved.
    """

    def __init__(
        self, folder: Path, score: str, mode: str, columns: Sequence[str], keep: Sequence[str] = (), **within: Any
    ):
        """within: what `WithinEpoch` takes."""
        super().__init__(**within)
        self.folder, self.score, self.mode, self.keep = folder, score, mode, keep
        self.table = MetricsTable(folder / "metrics.csv", ["epoch", "step", *columns])
        self.best: dict[str, Any] | None = None  # epoch, score, metrics
        self.validated: dict[str, Any] = {}
        self.pace = Pace(self.path("last"), self.path("best"), self.table.file)

    def path(self, which: str) -> Path:
        return self.folder / "checkpoints" / f"{which}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if trainer.is_global_zero:
            log.info(f"resuming from {self._told(checkpoint)}")
        best = checkpoint["callbacks"][self.state_key]["best"]
        if trainer.is_global_zero and best is not None and best["epoch"] == checkpoint["epoch"]:
            copy_whole(self.path("last"), self.path("best"))  # the run may have been killed just before it did this

    def _told(self, checkpoint: dict[str, Any]) -> str:
        """Which checkpoint this is, and where in the training it was saved."""
        within = checkpoint.get("within_epoch")
        if within is None:
            return f"{shown(self.path('last'))}, after its last finished epoch"
        place = f"epoch {checkpoint['epoch'] + 1}, after batch {within['batches']} of {within['of']}"
        return f"{shown(self.path('within_epoch'))}, {place}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        within = self.resumed is not None
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self.table.truncate(trainer.current_epoch)
            self._keep(trainer.current_epoch)  # once more: the run may have been killed just before
            # Within an epoch Lightning's count lacks the batch that was trained on last.
            step = trainer.fit_loop.epoch_loop._batches_that_stepped + int(within)
            go_on(trainer.loggers, step, {} if within else self.table.last_metrics())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.validated = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = {k: v for k, v in trainer.callback_metrics.items() if not k.startswith("val/")} | self.validated
        row = {name: float(value) for name, value in now.items()}
        sync = not trainer.is_global_zero or self.pace.is_due()
        if trainer.is_global_zero:
            self.table.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **row}, sync)
        improved = self.score in row and self._is_better(row[self.score])
        if improved:
            self.best = {"epoch": trainer.current_epoch, "score": row[self.score], "metrics": row}
        self._save(trainer, "last", sync)
        if trainer.is_global_zero:
            if improved:
                copy_whole(self.path("last"), self.path("best"), sync)
            if sync:
                self.pace.catch_up()
            self._keep(trainer.current_epoch + 1)
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.pace.catch_up()
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        if trainer.is_global_zero and not isinstance(exception, WriteError):
            self.pace.catch_up()

    def save(self, trainer: Trainer, which: str = "last") -> None:
        """Saves the present state as <which>.ckpt, and brings it onto the disk with all that was saved before.

        All processes call it, and the first one writes. Raises WriteError.
        """
        self._save(trainer, which, sync=True)
        if trainer.is_global_zero:
            self.pace.catch_up()

    def _keep(self, epochs: int) -> None:
        """Keeps last.ckpt, which is of so many epochs, under another name where `keep` says so."""
        name = kept_after(epochs, self.keep)
        if name is not None and self.path("last").is_file() and not self.path(name).is_file():
            copy_whole(self.path("last"), self.path(name))

    def _save(self, trainer: Trainer, which: str, sync: bool) -> None:
        for logger in trainer.loggers:
            logger.save()  # a run that goes on from here logs only what comes later
        trainer.save_checkpoint(self.path(which), weights_only=False, storage_options={"sync": sync})

    def adopt_last(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Makes the last checkpoint the best, for a run that has saved no other."""
        self.best = {"epoch": None, "score": metrics[self.score], "metrics": dict(metrics)}
        if trainer.is_global_zero:
            copy_whole(self.path("last"), self.path("best"))

    def _is_better(self, score: float) -> bool:
        if self.best is None or math.isnan(self.best["score"]):
            return True
        # Where scores are equal, as they often are on small validation sets, the later epoch is the best: it has
        # trained longer, and at a lower rate.
        return score >= self.best["score"] if self.mode == "max" else score <= self.best["score"]
