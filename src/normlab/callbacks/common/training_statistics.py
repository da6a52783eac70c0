"""Running statistics estimated from a run's training data."""

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from lightning import LightningModule, Trainer
from torch import nn

from normlab.data.common.loaders import Chunk
from normlab.data.common.seeds import kept_random_state
from normlab.norms.common.estimate import estimate_statistics


def estimate_from_training(
    trainer: Trainer, task: Any, samples: int | None, in_order: bool, layers: Collection[str]
) -> None:
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
