"""Ends an unpromising trial of a search early."""

import math
from collections.abc import Container
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer

from normlab.callbacks.record import Record
from normlab.sweeps.study import load_trial

if TYPE_CHECKING:  # it is an extra
    from optuna.trial import Trial

DECIDED = "pruned_after"  # the epoch, among the trial's attributes: some pruners give their answer once only


class Pruning(Callback):
    """Tells the trial of the score at the end of each epoch, and stops training where the study's pruner says so.

    Epochs without validation are left out, and of the last one the pruner is not asked: nothing is saved by it. The
    first of several processes asks, and all stop together. A report comes before the epoch is saved, so that each
    saved one has its own; one that is trained again after a kill is not reported again, and a decision stands.

    Not optuna-integration's, which raises within the validation, before the epoch's row and checkpoint are written.
    """

    def __init__(self, record: Record):
        self.record = record
        self.trial: Trial | None = None
        self.reported: Container[int] = ()  # epochs, by an earlier start
        self.pruned = False  # whether the run was ended

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
        """What the pruner says after this epoch."""
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
        """Whether an earlier start was to end after this epoch."""
        return self.trial is not None and epoch >= self.trial.user_attrs.get(DECIDED, math.inf)
