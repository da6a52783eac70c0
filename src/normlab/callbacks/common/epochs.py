"""What callbacks that go by epochs, and by the layers with running statistics, have in common."""

from abc import abstractmethod

from lightning import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from normlab.errors import ConfigError
from normlab.norms.common.estimate import layers_with_statistics


class EpochBegin(Callback):
    """Has `begin_epoch` called where an epoch begins, and where a run goes on within one.

    Lightning calls on_train_epoch_start only where an epoch begins, and on_train_start where a run goes on.
    """

    @abstractmethod
    def begin_epoch(self, trainer: Trainer, task: LightningModule) -> None:
        """Puts the callback, and what it changes, into the state of this epoch; a second call changes nothing."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin_epoch(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin_epoch(trainer, pl_module)


def keeping_layers(task: LightningModule) -> dict[str, nn.Module]:
    """The layers of the task's network that keep running statistics, by name."""
    assert isinstance(task.network, nn.Module)
    return layers_with_statistics(task.network)


def moving_layers(task: LightningModule) -> dict[str, nn.Module]:
    """The layers of the task's network whose running statistics training moves now, by name."""
    return {name: layer for name, layer in keeping_layers(task).items() if layer.training}


def check_keeps_statistics(task: LightningModule, callback: str) -> None:
    """Raises ConfigError for a network without running statistics, for which the callback would do nothing."""
    if not keeping_layers(task):
        raise ConfigError(f"callbacks={callback}: no norm layer of this network keeps running statistics; leave it out")


def check_epochs(trainer: Trainer, callback: str) -> None:
    """Raises ConfigError where the number of epochs is not known, for a callback that goes by it."""
    if trainer.max_epochs in (None, -1):
        raise ConfigError(f"callbacks={callback} goes by the number of epochs: set trainer.max_epochs")
