"""The tags of a run, in the hyperparameters of its loggers."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer


class Tags(Callback):
    """Tells each logger the tags of the run, as one text, when training starts."""

    def __init__(self, tags: Sequence[object]):
        self.text = ", ".join(map(str, tags))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            logger.log_hyperparams({"tags": self.text})
