"""Refuses processes of a run that would not train the same thing."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer

from normlab.errors import ConfigError


class SameConfig(Callback):
    """Compares the hash of the configuration, and the batches of an epoch, with the first process's before training."""

    def __init__(self, config_hash: str):
        self.config_hash = config_hash

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        first = trainer.strategy.broadcast(self.config_hash)
        if first != self.config_hash:
            raise ConfigError(
                f"process {trainer.global_rank} has the configuration {self.config_hash} and process 0 {first}: "
                "start all of them with the same command"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = (trainer.num_training_batches, *trainer.num_val_batches)
        first = trainer.strategy.broadcast(own)
        if first != own:
            raise ConfigError(
                f"process {trainer.global_rank} has {_words(own)}, and process 0 {_words(first)}: the data's loaders "
                "must cut as many batches in every process, as normlab.data.common.base.Batches does"
            )


def _words(batches: Sequence[int | float]) -> str:
    return f"{batches[0]} training and {sum(batches[1:])} validation batches an epoch"
