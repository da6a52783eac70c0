"""Runs whose process ends in the middle, as by kill -9, or that a test kills."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback

from normlab import compose, run
from normlab.callbacks.record import Record


class Die(Callback):
    """Ends the process as kill -9 does, at the `count`-th call of a hook, counted from 1."""

    def __init__(self, hook: str, count: int):
        self.count = count
        setattr(self, hook, self._called)

    def _called(self, trainer, *_, **__):
        self.count -= not trainer.sanity_checking
        if self.count == 0:
            os._exit(9)


def run_to_death(overrides: Sequence[str], folder: str, hook: str, count: int) -> None:
    """Trains until a hook is called so often; "after saving" is between the checkpoint of an epoch and its logging."""
    if hook != "after saving":
        run(compose(overrides), folder=folder, callbacks=[Die(hook, count)])
        return
    saves = Record.on_train_epoch_end

    def on_train_epoch_end(self, trainer, task):
        saves(self, trainer, task)
        if trainer.current_epoch == count:
            os._exit(9)

    Record.on_train_epoch_end = on_train_epoch_end
    run(compose(overrides), folder=folder)


def run_to_end(overrides: Sequence[str], folder: str) -> None:
    """Trains; the process exits with 130 where it is interrupted."""
    try:
        run(compose(overrides), folder=Path(folder))
    except KeyboardInterrupt:
        os._exit(130)


def noting(log: Callable[..., None], handed: str) -> Callable[..., None]:
    """A method in place of wandb.Run.log that also writes what it is handed into a file, a row a line."""

    def note(self, data, *args, **kwargs):
        with Path(handed).open("a") as lines:
            lines.write(json.dumps({name: float(value) for name, value in data.items()}) + "\n")
        log(self, data, *args, **kwargs)

    return note


def run_to_death_noting(handed: str, *of_run: Any) -> None:
    """`run_to_death`, with what Weights & Biases is handed in a file."""
    import wandb

    wandb.Run.log = noting(wandb.Run.log, handed)
    run_to_death(*of_run)
