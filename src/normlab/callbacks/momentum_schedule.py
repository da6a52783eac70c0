"""Running statistics that follow ever more batches.  python train.py callbacks=momentum_schedule"""

from lightning import LightningModule, Trainer
from typing_extensions import override

from normlab.callbacks.common.epochs import EpochBegin, check_epochs, check_keeps_statistics, keeping_layers
from normlab.errors import ConfigError


class MomentumSchedule(EpochBegin):
    """The share of a new batch in the running statistics goes from `first` in the first epoch to `last` in the last.

    It changes by the same factor from epoch to epoch. A large share follows weights that move fast, and a small one
    averages the noise of small batches where they hardly move. Training is the same with every share, but for norms
    that use running statistics there, such as renorm. Raises ConfigError where no layer keeps running statistics, for
    a layer without a momentum of its own, and where the number of epochs is not known.
    """

    def __init__(self, first: float = 0.1, last: float = 0.01):
        self.first, self.last = first, last

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_keeps_statistics(pl_module, "momentum_schedule")
        for name, layer in keeping_layers(pl_module).items():
            if not isinstance(getattr(layer, "momentum", None), int | float):
                raise ConfigError(
                    f"callbacks=momentum_schedule: {name} ({type(layer).__name__}) has no momentum that could be set"
                )
        check_epochs(trainer, "momentum_schedule")

    def momentum(self, epoch: int, epochs: int) -> float:
        """The share in epoch `epoch`, counted from 0, of `epochs`."""
        return self.first * (self.last / self.first) ** (epoch / max(epochs - 1, 1))

    @override
    def begin_epoch(self, trainer: Trainer, task: LightningModule) -> None:
        assert trainer.max_epochs is not None
        momentum = self.momentum(trainer.current_epoch, trainer.max_epochs)
        for layer in keeping_layers(task).values():
            for each in getattr(layer, "sets", [layer]):
                each.momentum = momentum
