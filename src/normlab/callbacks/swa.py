"""Stochastic weight averaging.  python train.py callbacks=swa scheduler=none"""

from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from normlab.callbacks.common.averaged import Averaged
from normlab.callbacks.common.epochs import check_epochs


class SWA(Averaged):
    """The mean of the weights at the ends of the last epochs; validated, saved and used is that.

    start: the share of the epochs after which averaging begins. It helps where the rate stays high in those epochs, as
    with scheduler=none, so that they end in different places of a wide minimum; the paper keeps a constant or a cyclic
    rate. Everything else is said in `Averaged`. In place of Lightning's StochasticWeightAveraging, which estimates
    statistics for torch's own batch norm alone and takes a further epoch for that.

    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, Averaging Weights Leads to Wider Optima and Better Generalization,
    2018, arXiv:1803.05407.
    """

    def __init__(self, start: float = 0.75, samples: int | None = 10_000, in_order: bool = False):
        super().__init__(_mean, samples, in_order)
        self.start = start
        self.due = False  # whether the weights after this step are to be averaged

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_epochs(trainer, "swa")

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        # Before the validation that follows the last batch: it is to measure the average that is saved.
        assert trainer.max_epochs is not None
        self.due = trainer.is_last_batch and trainer.current_epoch >= self.start * trainer.max_epochs
        super().on_train_batch_end(trainer, pl_module, *rest)

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return self.due


def _mean(average: Tensor, weights: Tensor, averaged: Any) -> Tensor:
    return average + (weights - average) / (averaged + 1)
