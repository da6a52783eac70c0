"""What callbacks that change the network while it trains have in common."""

from abc import abstractmethod

from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from normlab.errors import ConfigError


class Changing(Callback):
    """Changes the network that a training begins with."""

    @abstractmethod
    def change(self, network: nn.Module) -> None:
        """Changes a network that has not been trained. Raises ConfigError for one that has nothing to change."""


class Hooked(Changing):
    """Changes what passes through layers while they are in training mode, by hooks that are there in a fit alone.

    Random numbers come from torch's generator, which every epoch seeds in each process: a run that goes on draws what
    it would have drawn, and processes draw their own. Each batch that is accumulated for a step has its own too.
    """

    def __init__(self) -> None:
        self.handles: list[RemovableHandle] = []

    @abstractmethod
    def hook(self, network: nn.Module) -> list[RemovableHandle]:
        """Registers the hooks. Raises ConfigError for a network without a layer to hook."""

    @override
    def change(self, network: nn.Module) -> None:
        if network._compiled_call_impl is not None:
            raise ConfigError(
                f"compile=true calls no hooks, and {type(self).__name__} works by them: use compile=false"
            )
        self.handles = self.hook(network)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module.network, nn.Module)
        self.change(pl_module.network)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []
