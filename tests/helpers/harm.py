"""Runs of several processes in which something happens to one."""

import os
import signal
from pathlib import Path

from lightning import Callback

from normlab import compose, run

SMALL = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3", "trainer.precision=64-true"]


TWO = [*SMALL, "trainer=ddp_cpu", "data.batch_size=4"]  # 115 samples: the last batch has 2 + 1


class Harm(Callback):
    """Does something to one process, once, in the middle of the second epoch."""

    def __init__(self, kind: str, mark: str, rank: int = 1):
        self.kind, self.mark, self.rank = kind, Path(mark), rank

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_rank != self.rank or trainer.current_epoch != 1 or batch_idx != 5 or self.mark.exists():
            return
        self.mark.touch()
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        batch[0].fill_(float("nan"))


def harmed(folder, overrides, kind, rank=1):
    config = compose(overrides)
    harm = {"_target_": "helpers.harm.Harm", "kind": kind, "mark": f"{folder}.mark", "rank": rank}
    config.callbacks = {"harm": harm}
    return run(config, folder=folder)
