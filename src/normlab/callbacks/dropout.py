"""Dropout in front of the linear layers of any network.  python train.py callbacks=dropout callbacks.dropout.p=0.3"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from normlab.callbacks.common.changing import Hooked
from normlab.errors import ConfigError
from normlab.norms.common.fold import KINDS

UNHOOKED = NonDynamicallyQuantizableLinear  # the class of attention's output projection


class Dropout(Hooked):
    """In training each input of a linear layer is zero with the probability `p`, and the others are divided by 1 - p.

    All linear layers have it but one that is the first of the network's convolutions and linear layers, as they were
    registered, since its inputs are the samples. So fc1 of MyNet has it, and each layer of an MLP but the first. The
    output projection of `nn.MultiheadAttention` is left out, since torch calls no hooks there. It comes on top of a
    dropout that the network has. Raises ConfigError for a network without such a layer, and for a compiled one.

    Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting, JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    @override
    def hook(self, network: nn.Module) -> list[RemovableHandle]:
        layers = [module for module in network.modules() if isinstance(module, KINDS)]
        dropped = [layer for layer in layers[1:] if isinstance(layer, nn.Linear) and not isinstance(layer, UNHOOKED)]
        if not dropped:
            raise ConfigError("callbacks=dropout: no linear layer follows another layer with weights; leave it out")
        return [layer.register_forward_pre_hook(self._drop) for layer in dropped]

    def _drop(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (F.dropout(args[0], self.p), *args[1:]) if layer.training else None
