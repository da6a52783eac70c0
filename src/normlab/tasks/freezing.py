"""Freezes parts of a network: their parameters, and their modes, by which norm layers keep their statistics.

frozen = normlab.freeze(network, "backbone")
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from types import MethodType

from torch import nn

from normlab.errors import did_you_mean
from normlab.models.common.head import outputs
from normlab.norms.common.declaration import declaration

BACKBONE = "backbone"  # the word for all but the head


class FrozenPart:
    """What a call of `freeze` has frozen, until `thaw`. modules and parameters: by their names in the network."""

    def __init__(self, network: nn.Module, modules: dict[str, nn.Module], parameters: dict[str, nn.Parameter]):
        self.network, self.modules, self.parameters = network, modules, parameters
        # A module that did not train along with the network before is left in eval mode when the rest is thawed.
        self.still = {module for module in modules.values() if network.training and not module.training}
        self.thawed = False
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer that has the parameter then leaves it alone
        for module in modules.values():
            module.training = False
            module.train = MethodType(_stay, module)

    def thaw(self) -> None:
        """Lets the modules follow the network's mode again, and gives the parameters gradients. Again, it does nothing.

        An optimizer steps these parameters from then on if it has them: see `parameter_groups`.
        """
        if self.thawed:
            return
        self.thawed = True
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        for module in self.modules.values():
            del module.train
            module.training = self.network.training and module not in self.still


def freeze(network: nn.Module, what: str | Sequence[str] = BACKBONE) -> FrozenPart:
    """Freezes parts of `network`, in place, so that training changes nothing of them.

    what: "backbone" for all but the head (`normlab.models.common.head`) and a norm on the outputs, or a glob of names
    of modules and parameters, such as "layer1*", or a list of those. A module is frozen with all that is in it.

    Parameters take no gradient. Modules stay in eval mode, whatever calls `.train()`: in training a frozen norm layer
    computes what it computes in evaluation and moves no statistics, and dropout inside a frozen module is off. A norm
    layer all of whose parameters are frozen is frozen too. Dropout between the backbone and the head stays on.

    Raises ValueError where a name matches nothing, where nothing that could train is chosen, and where nothing else is
    left to train.
    """
    patterns = [what] if isinstance(what, str) else list(what)
    shown = patterns[0] if len(patterns) == 1 else f"[{','.join(patterns)}]"
    modules, parameters = _chosen(network, patterns)
    if not parameters and not any(map(_has_tensors, modules.values())):
        raise ValueError(f"freeze={shown}: there is nothing in it that training would change")
    if not any(parameter.requires_grad for parameter in {*network.parameters()} - {*parameters.values()}):
        raise ValueError(f"freeze={shown}: nothing is left to train; leave out the head, or what else is to learn")
    newly = {name: module for name, module in modules.items() if "train" not in vars(module)}
    return FrozenPart(network, newly, {name: p for name, p in parameters.items() if p.requires_grad})


def _chosen(network: nn.Module, patterns: Sequence[str]) -> tuple[dict[str, nn.Module], dict[str, nn.Parameter]]:
    """The modules and parameters that are to be frozen, each under one name."""
    tops: set[nn.Module] = set()
    parameters: set[nn.Parameter] = set()
    for pattern in patterns:
        modules, own = _backbone(network) if pattern == BACKBONE else _matching(network, pattern)
        tops.update(modules)
        parameters.update(own)
    inside = {module for top in tops for module in top.modules()}
    parameters |= {parameter for module in inside for parameter in module.parameters()}
    for layer in network.modules():
        own = {*layer.parameters()}
        if declaration(layer) and own & parameters and all(p in parameters or not p.requires_grad for p in own):
            inside |= {*layer.modules()}
    named = {name: module for name, module in network.named_modules() if module in inside}
    return named, {name: parameter for name, parameter in network.named_parameters() if parameter in parameters}


def _backbone(network: nn.Module) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """The modules outside the head, and the parameters of the modules that it lies in."""
    head = {module for top in outputs(network) for module in top.modules()}
    above = {module for module in network.modules() if not head.isdisjoint(module.modules())} - head
    modules = [module for module in network.modules() if module not in head and module not in above]
    return [m for m in modules if declaration(m) or _has_tensors(m)], [p for m in above for p in m.parameters(False)]


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in chain(module.parameters(), module.buffers()))


def _matching(network: nn.Module, pattern: str) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """The modules and parameters whose names match a glob. Raises ValueError where there are none."""
    named = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    parameters = dict(network.named_parameters(remove_duplicate=False))
    modules = [module for name, module in named.items() if fnmatchcase(name, pattern)]
    own = [parameter for name, parameter in parameters.items() if fnmatchcase(name, pattern)]
    if not modules and not own:
        near = did_you_mean(pattern.strip("*."), [BACKBONE, *named, *parameters], most=3)
        listed = "" if near else f" (it has {', '.join(_few(name for name, _ in network.named_children()))})"
        raise ValueError(f"freeze={pattern}: nothing in the network is called so{near}{listed}")
    return modules, own


def _few(names: Iterator[str]) -> list[str]:
    listed = list(names)
    return listed if len(listed) <= 8 else [*listed[:8], "…"]


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:
    """Takes the place of a frozen module's `.train()`."""
    return type(self).train(self, False)


_stay.__name__ = "train"  # pickle finds a method by its name
