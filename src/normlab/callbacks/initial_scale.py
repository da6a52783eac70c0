"""Initial weights of another size.  python train.py callbacks=initial_scale callbacks.initial_scale.factor=0.1"""

import torch
from lightning import LightningModule, Trainer
from torch import nn
from typing_extensions import override

from normlab.callbacks.common.changing import Changing
from normlab.errors import ConfigError
from normlab.norms.common.fold import KINDS


class InitialScale(Changing):
    """The initial weights of all convolutions and linear layers are multiplied by `factor`; their biases are not.

    It happens once, before the first step: a run that goes on loads its weights afterwards. It shows how much a network
    depends on its initialization; the projections that an attention layer holds itself stay as they are. Raises
    ConfigError for a network without such layers.
    """

    def __init__(self, factor: float = 0.1):
        self.factor = factor

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            assert isinstance(pl_module.network, nn.Module)
            self.change(pl_module.network)

    @override
    @torch.no_grad()
    def change(self, network: nn.Module) -> None:
        weights = {module.weight for module in network.modules() if isinstance(module, KINDS)}  # shared ones once
        if not weights:
            raise ConfigError("callbacks=initial_scale: this network has no convolution or linear layer; leave it out")
        for weight in weights:
            weight.mul_(self.factor)
