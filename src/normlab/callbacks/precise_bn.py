"""Precise statistics for validation and checkpoints.  python train.py callbacks=precise_bn"""

from lightning import LightningModule, Trainer
from torch import nn
from typing_extensions import override

from normlab.callbacks.common.epochs import EpochBegin, check_keeps_statistics, moving_layers
from normlab.callbacks.common.training_statistics import estimate_from_training


class PreciseBN(EpochBegin):
    """Estimates the running statistics anew, for the weights of now, before they are validated and saved.

    samples: of the training part, over all processes; None: all. in_order: one layer after the other, see
    `normlab.estimate_statistics`. Running statistics otherwise follow the batches of the past, whose weights were
    others. Layers that are in eval mode while the rest trains stay as they are. Checkpoints within an epoch have the
    statistics of the moment, since the run goes on from them as if it had never ended.

    It helps where batches are small or the weights move fast; a network that is validated at a low learning rate after
    many steps gains nothing. The training batches are those of the first epoch, with its augmentation and mixing.
    Raises ConfigError where no layer keeps running statistics.

    Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576.
    """

    def __init__(self, samples: int | None = 10_000, in_order: bool = False):
        self.samples, self.in_order = samples, in_order
        self.layers: dict[str, nn.Module] = {}
        self.step = -1  # at which the statistics were estimated last

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_keeps_statistics(pl_module, "precise_bn")

    @override
    def begin_epoch(self, trainer: Trainer, task: LightningModule) -> None:
        self.layers = moving_layers(task)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._estimate(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.step != trainer.global_step:  # the epoch had no validation at its end
            self._estimate(trainer, pl_module)

    def _estimate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        estimate_from_training(trainer, pl_module, self.samples, self.in_order, self.layers)
        self.step = trainer.global_step
