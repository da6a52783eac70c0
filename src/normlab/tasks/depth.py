"""The layers of a network in their order, from its input to its head."""

from torch import nn

from normlab.models.common.head import outputs
from normlab.norms.common.declaration import declaration

CONTAINERS = (nn.Sequential, nn.ModuleList)  # these exact types; a subclass is one block


def layers(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The layers by name, each with its parameters, in the order in which they were registered; the last is the head.

    A layer is a child of the network, or an element of a Sequential or ModuleList. A child or an element that itself
    holds a Sequential or ModuleList of several blocks, each with several weight matrices, is opened like the network:
    so each residual block is a layer. What has no weight matrix, such as a norm, counts with the layer before it, and
    before the first layer with that one. The head is what `normlab.models.common.head.outputs` gives. Raises ValueError
    where a network has none.
    """
    return _Layers(network).found


class _Layers:
    def __init__(self, network: nn.Module):
        top = outputs(network)
        of_head = [parameter for module in top for parameter in module.parameters()]
        norms = [module for module in network.modules() if declaration(module)]
        self.of_norms = {parameter for norm in norms for parameter in norm.parameters()}
        self.taken = {*of_head}
        self.found: dict[str, list[nn.Parameter]] = {}
        self.early: list[nn.Parameter] = []  # what comes before the first layer
        self._open(network, "")
        if self.early:
            self.found["stem"] = self.early
        head = next((name for name, module in network.named_modules() if module is top[0]), "head")
        self.found[head or "head"] = of_head

    def _open(self, module: nn.Module, prefix: str) -> None:
        self._add(prefix, list(module.parameters(recurse=False)), begins=False)
        for key, child in module.named_children():
            name = f"{prefix}.{key}".removeprefix(".")
            if type(child) in CONTAINERS or _holds_blocks(child):
                self._open(child, name)
            else:
                self._add(name, list(child.parameters()))

    def _add(self, name: str, parameters: list[nn.Parameter], begins: bool = True) -> None:
        """Adds parameters to a new layer, or to the one before it where they have no matrix or are not to begin one."""
        new = [parameter for parameter in dict.fromkeys(parameters) if parameter not in self.taken]
        self.taken.update(new)
        if begins and any(parameter.ndim > 1 and parameter not in self.of_norms for parameter in new):
            self.found[name] = [*self.early, *new]
            self.early = []
        elif self.found:
            next(reversed(self.found.values())).extend(new)
        else:
            self.early += new


def _holds_blocks(module: nn.Module) -> bool:
    """Whether a module holds a Sequential or ModuleList of several elements with several weight matrices each."""
    containers = (inner for inner in module.modules() if type(inner) in CONTAINERS)
    return any(sum(_matrices(element) > 1 for element in container.children()) > 1 for container in containers)


def _matrices(module: nn.Module) -> int:
    return sum(parameter.ndim > 1 for parameter in module.parameters())
