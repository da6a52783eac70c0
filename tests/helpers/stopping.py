"""Runs that are stopped in the middle of an epoch."""

import pytest
from lightning import Callback

from normlab import compose, run


class Stop(Callback):
    """Ends training in the middle of an epoch."""

    def __init__(self, epoch: int, error: BaseException):
        self.epoch, self.error = epoch, error
        self.on_train_batch_end = self._stop  # a method of this name is refused with steps_per_execution

    def _stop(self, trainer, task, *_):
        if trainer.current_epoch == self.epoch:
            raise self.error


def stopped(tmp_path, overrides, error, epoch=1):
    """A run that ends with `error` in the middle of an epoch."""
    with pytest.raises(type(error)):
        run(compose(overrides), folder=tmp_path, callbacks=[Stop(epoch, error)])
