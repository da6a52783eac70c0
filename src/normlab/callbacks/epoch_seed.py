"""Makes an epoch's random numbers, such as dropout's, independent of the epochs before it."""

from lightning import Callback, LightningModule, Trainer

from normlab.data.common.seeds import mix, seed_everything


class EpochSeed(Callback):
    """Seeds each epoch by (seed, epoch, rank): a resumed run draws what an unbroken one would."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_epoch(self.seed, trainer.current_epoch, trainer.global_rank)


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seeds the random number generators as an epoch begins with them."""
    seed_everything(mix("epoch", seed, epoch, rank))
