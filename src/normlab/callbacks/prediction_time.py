"""Evaluation by the statistics of each test batch.  python train.py action=test name=x callbacks=prediction_time"""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from normlab.callbacks.common.epochs import check_keeps_statistics, keeping_layers
from normlab.norms.common.estimate import take_batch


class PredictionTime(Callback):
    """Lets action=test normalise each batch by its own statistics, in every layer that keeps running statistics.

    Afterwards parameters and statistics are what they were, bit for bit. It helps where the test data's brightness,
    contrast or noise are not those of the training data; it harms where a test batch is small, or sorted by class, as
    its statistics are then those of a few samples, or of the class. Over several processes each has its own batches.
    Raises ConfigError where no layer keeps running statistics, ValueError for a batch with one value of a channel.

    Nado et al., Evaluating Prediction-Time Batch Normalization, 2020, arXiv:2006.10963.
    """

    def __init__(self) -> None:
        self.hooks: list[RemovableHandle] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_keeps_statistics(pl_module, "prediction_time")
        network = pl_module.network
        assert isinstance(network, nn.Module)
        self.before = [(tensor, tensor.clone()) for tensor in (*network.parameters(), *network.buffers())]
        self.hooks = [
            layer.register_forward_pre_hook(_by_batch(name)) for name, layer in keeping_layers(pl_module).items()
        ]

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for hook in self.hooks:
            hook.remove()
        for tensor, values in self.before:
            tensor.copy_(values)
        self.hooks, self.before = [], []


def _by_batch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def take(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not module.training:
            take_batch(getattr(module, "in_use", module), args[0], name)

    return take
