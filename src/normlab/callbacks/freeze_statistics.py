"""Running statistics that stand still in the last epochs.  python train.py callbacks=freeze_statistics"""

from lightning import LightningModule, Trainer
from typing_extensions import override

from normlab.callbacks.common.epochs import EpochBegin, check_epochs, check_keeps_statistics, moving_layers
from normlab.callbacks.modes import ModeGuard


class FreezeStatistics(EpochBegin):
    """In the last epochs training normalises by the running statistics, which no longer move.

    start: the share of the epochs after which they stand still; 0.75 of 8 epochs leaves the last two.

    Training and evaluation are then the same function, whose weights, γ and β go on learning. It helps at the end of a
    training with small batches, where batch statistics are noisy; begun while weights still move fast, it fixes
    statistics of other weights, with which training diverges. Layers that keep no running statistics stay as they are.
    Raises ConfigError where no layer keeps any.

    Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.2 ("FrozenBN").
    """

    def __init__(self, start: float = 0.75):
        self.start = start

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_keeps_statistics(pl_module, "freeze_statistics")
        check_epochs(trainer, "freeze_statistics")

    @override
    def begin_epoch(self, trainer: Trainer, task: LightningModule) -> None:
        assert trainer.max_epochs is not None
        if trainer.current_epoch < self.start * trainer.max_epochs:
            return
        for layer in moving_layers(task).values():
            layer.eval()
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, ModeGuard):
                callback.look(task)
