"""Ends an unpromising trial of a search early."""

import math
from collections.abc import Container
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from normlab.callbacks.record import Record
from normlab.sweeps.study import load_trial

if TYPE_CHECKING:  # Optuna is an extra
    from optuna.trial import Trial

DECIDED = "pruned_after"  # the trial's attribute with the epoch; it is kept, as some pruners give an answer only once


class Pruning(Callback):
    """Reports the score to the trial at the end of each epoch, and stops training where the study's pruner says so.

    Epochs without validation are left out. After the last epoch the pruner is not asked, since stopping then saves
    nothing. The first of several processes asks, and all stop together. A score is reported before its epoch is saved,
    so every saved epoch has its report. An epoch that is trained again after a kill is not reported again, and a
    decision stands.

    optuna-integration's callback raises during the validation, before the epoch's row and checkpoint are written.
    """

    def __init__(self, record: Record):
        self.record = record
        self.trial: Trial | None = None
        self.reported: Container[int] = ()  # the epochs that an earlier start has reported
        self.pruned = False  # whether this callback ended the run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.trial = load_trial(self.record.folder)
        if self.trial is not None:
            self.reported = self.trial.study.trials[self.trial.number].intermediate_values
        self._end(trainer, self._decided(trainer.current_epoch - 1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, self._asked(trainer))

    def _end(self, trainer: Trainer, wanted: bool) -> None:
        """Ends training in all processes where the first one wants it."""
        if trainer.strategy.broadcast(wanted):
            trainer.should_stop = self.pruned = True

    def _asked(self, trainer: Trainer) -> bool:
        """Whether the pruner wants the run to end after this epoch."""
        if self.trial is None:
            return False
        epoch = trainer.current_epoch
        (objective,) = self.trial.study.user_attrs["objectives"]
        value = self.record.validated.get(self.record.score if objective == "score" else objective)
        if value is not None and epoch not in self.reported:
            self.trial.report(float(value), epoch)
        if self._decided(epoch):
            return True
        last = trainer.should_stop or epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if value is None or last or not self.trial.should_prune():
            return False
        self.trial.set_user_attr(DECIDED, epoch)
        return True

    def _decided(self, epoch: int) -> bool:
        """Whether an earlier start decided to end after this epoch, or before."""
        return self.trial is not None and epoch >= self.trial.user_attrs.get(DECIDED, math.inf)
