"""What EMA and SWA have in common: averaged weights with statistics of their own."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from typing_extensions import override

from normlab.callbacks.common.epochs import EpochBegin, moving_layers
from normlab.callbacks.common.training_statistics import estimate_from_training

MODULE = "module."  # how torch's AveragedModel begins the names of what it averages


class Averaged(EpochBegin, WeightAveraging):
    """Averages the weights, which are then validated, saved and, after training, used in place of those that train.

    Running statistics are not averaged, since those of an average of weights are no average of statistics: they are
    estimated from training data for the averaged weights, before each validation and at the end of each epoch, as
    `callbacks=precise_bn` does. Until the first update everything is as without the callback.

    Checkpoints hold the averaged network as `state_dict`, where every reader looks, and what training goes on with as
    `current_model_state`. average: from the average, the weights and the number of weights averaged, the new average.
    samples, in_order: as in PreciseBN.
    """

    def __init__(self, average: Callable[[Tensor, Tensor, Any], Tensor], samples: int | None, in_order: bool):
        super().__init__(use_buffers=False, avg_fn=average)
        self.samples, self.in_order = samples, in_order
        self.layers: dict[str, nn.Module] = {}
        self.estimated = -1  # the step for whose average the statistics are
        self.exchanged = False  # whether the averaged weights are in the network, and the others in the average's place

    @property
    def begun(self) -> bool:
        """Whether there is an average."""
        return self._average_model is not None and bool(self._average_model.n_averaged)

    @override
    def begin_epoch(self, trainer: Trainer, task: LightningModule) -> None:
        self.layers = moving_layers(task)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.begun and not trainer.sanity_checking:
            self._exchange(pl_module)
            self._estimate(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.exchanged:
            self._exchange(pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.begun and self.estimated != trainer.global_step:  # the epoch had no validation at its end
            self._exchange(pl_module)
            self._estimate(trainer, pl_module)
            self._exchange(pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.begun:
            super().on_train_end(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.begun:
            return
        assert self._average_model is not None
        if not self.exchanged:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            return
        held = self._average_model.state_dict()
        checkpoint["current_model_state"] = {
            name.removeprefix(MODULE): values for name, values in held.items() if name.startswith(MODULE)
        }
        checkpoint["averaging_state"] = {name: values for name, values in held.items() if not name.startswith(MODULE)}

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None and "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _exchange(self, pl_module: LightningModule) -> None:
        self._swap_models(pl_module)
        self.exchanged = not self.exchanged

    def _estimate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        estimate_from_training(trainer, pl_module, self.samples, self.in_order, self.layers)
        self.estimated = trainer.global_step
