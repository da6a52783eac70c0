"""Lets what was frozen train from an epoch on.  python train.py init=first freeze=backbone thaw_at=3"""

import logging

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from normlab.callbacks.modes import ModeGuard
from normlab.tasks.freezing import FrozenPart

log = logging.getLogger(__name__)


class Thaw(Callback):
    """Thaws a frozen part where epoch `epoch`, counted from 0, begins.

    The optimizer has its parameters from the start, with rates that the schedule moves, and steps them from their first
    gradient on; the state that it keeps of them, such as momentum, begins there. A run that goes on from a checkpoint
    of a later time is thawed before the checkpoint is loaded.
    """

    def __init__(self, frozen: FrozenPart, epoch: int, modes: ModeGuard):
        self.frozen, self.epoch, self.modes = frozen, epoch, modes

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        if checkpoint["epoch"] >= self.epoch:  # of an epoch that was in progress, or that had ended
            self.frozen.thaw()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.frozen.thawed or trainer.current_epoch < self.epoch:
            return
        self.frozen.thaw()
        self.modes.look(pl_module)
        _exchange_gradients(trainer)
        log.info(f"epoch {trainer.current_epoch}: thawed, {len(self.frozen.parameters)} tensors more are trained")


def _exchange_gradients(trainer: Trainer) -> None:
    """Has the processes exchange the new gradients too: DistributedDataParallel looks for parameters when it is made.

    It is made anew without copying the first process's tensors to the others, since parameters agree already, and
    buffers may be each process's own.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy._ddp_kwargs["init_sync"] = False
        strategy.model = strategy.lightning_module
        strategy.configure_ddp()
