"""Precise statistics for validation and checkpoints.  python train.py callbacks=precise_bn"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from normlab.data.common.loaders import Chunk
from normlab.data.common.seeds import kept_random_state
from normlab.errors import ConfigError
from normlab.norms.common.estimate import estimate_statistics, keeps_statistics


class PreciseBN(Callback):
    """Estimates the running statistics anew, for the weights of now, before they are validated and saved.

    samples: of the training part, over all processes; None: all. in_order: one layer after the other, see
    `normlab.estimate_statistics`. Running statistics otherwise follow the batches of the past, whose weights were
    others. Layers that are in eval mode while the rest trains stay as they are. Checkpoints within an epoch have the
    statistics of the moment, since the run goes on from them as if it had never ended.

    It helps where batches are small or the weights move fast; a network that is validated at a low learning rate after
    many steps gains nothing. The training batches are those of the first epoch, with its augmentation and mixing.
    Raises ConfigError where no layer keeps running statistics.

    Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576.
    """

    def __init__(self, samples: int | None = 10_000, in_order: bool = False):
        self.samples, self.in_order = samples, in_order
        self.layers: list[str] = []
        self.step = -1  # at which the statistics were estimated last

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_keeps_statistics(pl_module, "precise_bn")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.layers = moving_layers(pl_module)  # a run that goes on within an epoch does not begin it again

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.layers = moving_layers(pl_module)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._estimate(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.step != trainer.global_step:  # the epoch had no validation at its end
            self._estimate(trainer, pl_module)

    def _estimate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        estimate_from_training(trainer, pl_module, self.samples, self.in_order, self.layers)
        self.step = trainer.global_step


def moving_layers(task: LightningModule) -> list[str]:
    """The names of the network's layers whose running statistics training moves now."""
    network = task.network
    assert isinstance(network, nn.Module)
    return [name for name, layer in network.named_modules() if layer.training and keeps_statistics(layer)]


def check_keeps_statistics(task: LightningModule, callback: str) -> None:
    """Raises ConfigError for a network without running statistics, for which the callback would do nothing."""
    if not any(map(keeps_statistics, task.modules())):
        raise ConfigError(f"callbacks={callback}: no norm layer of this network keeps running statistics; leave it out")


def check_epochs(trainer: Trainer, callback: str) -> None:
    """Raises ConfigError where the number of epochs is not known, for a callback that goes by it."""
    if trainer.max_epochs in (None, -1):
        raise ConfigError(f"callbacks={callback} goes by the number of epochs: set trainer.max_epochs")


def estimate_from_training(trainer: Trainer, task: Any, samples: int | None, in_order: bool, layers: list[str]) -> None:
    """Estimates the statistics of `layers` of the task's network from its training data; random numbers stay."""
    if not layers:
        return

    def forward(network: nn.Module, batch: Any) -> None:
        x, _, *domain = batch
        if domain:
            task.set_domain(domain[0])
        with trainer.precision_plugin.forward_context():
            network(x)

    with kept_random_state(task.device):
        estimate_statistics(task.network, _Batches(trainer, task), samples, in_order, forward, layers)


class _Batches:
    """The batches of the training part, on the task's device, as often as they are asked for."""

    def __init__(self, trainer: Trainer, task: LightningModule):
        self.trainer, self.task = trainer, task

    def __iter__(self) -> Iterator[Any]:
        trainer, task = self.trainer, self.task
        loader = trainer.fit_loop._data_source.dataloader()
        limit = trainer.num_training_batches  # infinite where the length is not known
        for batch in islice(loader, limit if isinstance(limit, int) else None):
            for single in batch if isinstance(batch, Chunk) else [batch]:
                converted = task._on_before_batch_transfer(trainer.precision_plugin.convert_input(single))
                yield trainer.strategy.batch_to_device(converted)
