"""Adaptation to unlabelled test data.  python train.py action=test name=x callbacks=tent"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from normlab.callbacks.common.epochs import keeping_layers
from normlab.callbacks.prediction_time import PredictionTime
from normlab.errors import ConfigError
from normlab.tasks.classify import Classify


class Tent(PredictionTime):
    """Lets action=test adapt γ and β to the test data, by descent on the entropy of its answers, without labels.

    Each batch is normalised by its own statistics (PredictionTime), answered and measured, and then γ and β of the
    layers that keep running statistics take a step of Adam with rate `lr` towards surer answers, from which the next
    batch profits. Afterwards everything is what it was, bit for bit. It helps against a shift of the inputs that lasts
    for many batches; where test batches are small or sorted by class, sure and wrong answers are what it learns.
    Raises ConfigError for a task without classes.

    Wang, Shelhamer, Liu, Olshausen & Darrell, Tent: Fully Test-Time Adaptation by Entropy Minimization, 2021,
    arXiv:2006.10726.
    """

    def __init__(self, lr: float = 1e-3):
        super().__init__()
        self.lr = lr

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Classify):
            raise ConfigError("callbacks=tent lowers the entropy of classes, and this data has none; leave it out")
        super().on_test_start(trainer, pl_module)
        self.layers = [*keeping_layers(pl_module).values()]
        self.parameters = [each for layer in self.layers for each in layer.parameters() if each.requires_grad]
        if not self.parameters:
            raise ConfigError("callbacks=tent: the network's norm layers have no γ and β that could be adapted")
        self.optimizer = torch.optim.Adam(self.parameters, self.lr)

    @override
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        with torch.inference_mode(False), torch.enable_grad(), _training(self.layers):
            x = batch[0].clone()  # outside inference mode, where autograd may keep it
            with trainer.precision_plugin.forward_context():
                logits = pl_module(x)
            gradients = torch.autograd.grad(entropy(logits.float()).mean(), self.parameters, allow_unused=True)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            self.optimizer.step()
            self.optimizer.zero_grad()


def entropy(logits: Tensor) -> Tensor:
    """The entropy (N,) of the classes that logits (N, classes) give, in nats."""
    return torch.distributions.Categorical(logits=logits).entropy()


@contextmanager
def _training(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Puts layers in train mode, so that gradients flow through the statistics of the batch, and back in eval mode."""
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
