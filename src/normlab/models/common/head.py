"""Which module of a network is its head, the layer that gives the outputs."""

from typing import Any

from torch import nn

from normlab.norms.common.declaration import declaration


def head(network: nn.Module) -> nn.Module:
    """The layer that turns a sample's features into outputs; all before it is the backbone.

    It is what the network's own `get_classifier()` answers, which every network of timm has, and for any other network
    the linear layer or convolution that was registered last: fc1 of MyNet, fc of torchvision's resnets, heads.head of
    its vision transformers. A network with several heads gives them as one ModuleList. Raises ValueError where there is
    no such layer.
    """
    stated = getattr(network, "get_classifier", None)
    given: Any = stated() if callable(stated) else None
    if isinstance(given, tuple | list):  # a distilled vision transformer has a second one
        return nn.ModuleList(given)
    if isinstance(given, nn.Module) and any(True for _ in given.parameters()):
        return given
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has neither a linear layer nor a convolution, so that its head is not known: "
            "give it a method get_classifier() that answers the module"
        )
    return layers[-1]


def outputs(network: nn.Module) -> list[nn.Module]:
    """The head, and the norm layers that were registered after it, which stand on its outputs. Raises ValueError."""
    top = head(network)
    parts = {*top.modules()}
    modules = [*network.modules()]
    last = max(place for place, module in enumerate(modules) if module in parts)
    return [top, *(module for module in modules[last + 1 :] if declaration(module))]
