"""Makes an epoch's random numbers, such as dropout's, independent of the epochs before it."""

import torch
from lightning import Callback, LightningModule, Trainer

from normlab.data.common.seeds import mix


class EpochSeed(Callback):
    """Seeds torch at each epoch by (seed, epoch, rank): a resumed run draws what an unbroken one would."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(mix("epoch", self.seed, trainer.current_epoch, trainer.global_rank))
