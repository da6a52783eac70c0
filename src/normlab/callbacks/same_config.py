"""All processes of a run must train the same thing."""

from lightning import Callback, LightningModule, Trainer

from normlab.errors import ConfigError


class SameConfig(Callback):
    """Compares the hash of the configuration with the first process's, before anything is trained or measured."""

    def __init__(self, config_hash: str):
        self.config_hash = config_hash

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        first = trainer.strategy.broadcast(self.config_hash)
        if first != self.config_hash:
            raise ConfigError(
                f"process {trainer.global_rank} has the configuration {self.config_hash} and process 0 {first}: "
                "start all of them with the same command"
            )
