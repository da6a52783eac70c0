"""Merges the running statistics of processes that are not synchronised."""

from lightning import Callback, LightningModule, Trainer
from torch import nn

from normlab.norms.common.synchronise import merge_statistics


class MergeStatistics(Callback):
    """Merges running statistics over processes before they are validated or saved (`trainer.sync_batchnorm=false`).

    Otherwise each process would validate another network, and the statistics of the first one's data would be saved.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._merge(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._merge(pl_module)

    def _merge(self, task: LightningModule) -> None:
        assert isinstance(task.network, nn.Module)
        merge_statistics(task.network)
