"""Runs that a signal asks to end, at a chosen moment."""

import os
import signal
from pathlib import Path

import pytest
from lightning import Callback

from helpers.folders import assert_same_run, result_of

HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_batch_start")
HOOKS += ("on_validation_end", "on_train_epoch_end")


class Ask(Callback):
    """Sends a signal at the `count`-th call of a hook, counted from 1; once, since it leaves a mark.

    rank: which of several processes sends it, to the process that has started it.
    """

    def __init__(self, hook: str, count: int, mark: str, number: int = signal.SIGTERM, rank: int = 0):
        self.count, self.mark, self.number, self.rank = count, Path(mark), number, rank
        setattr(self, hook, self._called)

    def _called(self, trainer, task, *args, **kwargs):
        if trainer.sanity_checking or trainer.global_rank != self.rank:
            return
        self.count -= 1
        if self.count == 0 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getppid() if trainer.world_size > 1 else os.getpid(), self.number)


def asked(overrides, **keys):
    """A configuration whose run is asked to end; see `Ask` for the keys."""
    from normlab import compose

    config = compose(overrides)
    config.callbacks = {**config.callbacks, "ask": {"_target_": "helpers.asking.Ask", **keys}}
    return config


def assert_goes_on(tmp_path, overrides, *moments, rank=0):
    """Interrupts a run at each of the moments, a hook and how often it was called, and lets it go on each time."""
    from normlab import compose, run

    run(compose(overrides), folder=tmp_path / "whole")
    for place, (hook, count) in enumerate(moments):
        folder = tmp_path / f"{place}"
        config = asked(overrides, hook=hook, count=count, mark=str(tmp_path / f"{place}.mark"), rank=rank)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder=folder)
        assert result_of(folder)["status"] == "interrupted"
        run(compose(overrides), folder=folder)
        assert_same_run(folder, tmp_path / "whole")
