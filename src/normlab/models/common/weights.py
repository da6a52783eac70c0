"""Loads weights into a network that they were not made for: what fits by name and shape is taken, the rest is told."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor, nn

from normlab.errors import ConfigError
from normlab.models.common.head import head

# What programs put before the names: DataParallel and DistributedDataParallel, our tasks, other LightningModules,
# torch.compile. Two may stand one after the other.
PREFIXES = ("", "module.", "network.", "model.", "_orig_mod.")
STATISTICS = ("running_mean", "running_var", "running_square", "num_batches_tracked")
COUNTER = "num_batches_tracked"  # it fits every norm layer, and says nothing of the weights
MOST = 4  # names that a line lists

Shapes = tuple[str, tuple[int, ...], tuple[int, ...]]  # a name, the shape in the file, the shape in the network


@dataclass
class Fit:
    """What of a file's tensors fits a network. loaded: names. head: of a head of another width, by its own name.

    shapes: of the same name and another shape, as (name, there, here). spare: in the file alone. lacking: in the
    network alone.
    """

    loaded: list[str] = field(default_factory=list)
    head: dict[str, tuple[int, int]] = field(default_factory=dict)
    shapes: list[Shapes] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for each kind of what did not fit, below how much did."""
        of = len(self.loaded) + len(self.shapes) + len(self.lacking)
        lines = [f"{len(self.loaded)} of the network's {of} tensors are loaded"]
        lines += [
            f"head {name} is new: {there} outputs there, {here} here" for name, (there, here) in self.head.items()
        ]
        shapes = [
            f"{name} {there} there, {here} here"
            for name, there, here in self.shapes
            if name.rpartition(".")[0] not in self.head
        ]
        for title, listed in (
            ("another shape", shapes),
            ("running statistics that only the file has", _of_layers(self.spare)),
            ("running statistics that only the network has, which begin anew", _of_layers(self.lacking)),
            ("only in the file", _others(self.spare)),
            ("only in the network, where they are as they begin", _others(self.lacking)),
        ):
            lines += [f"{title}: {_few(listed)}"] if listed else []
        return "\n  ".join(lines)


def load_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Loads the tensors that fit `network` by name and shape, parameters and buffers, and says what did not fit.

    A prefix of the file's names, or two, is left out where more names then fit. Norm layers that `replace_norms` has
    put into one of timm's layers are found by that layer's names. Raises ConfigError where nothing fits, with the
    network unchanged.
    """
    expected = network.state_dict()
    given = _renamed(network, _stripped(weights, expected), expected)
    fit = Fit()
    taken: dict[str, Tensor] = {}
    for name, value in expected.items():
        if name not in given:
            fit.lacking.append(name)
        elif given[name].shape != value.shape:
            fit.shapes.append((name, tuple(given[name].shape), tuple(value.shape)))
        else:
            taken[name] = given[name]
    if all(name.endswith(COUNTER) for name in taken):
        raise ConfigError(
            f"no tensor of it fits this network by name and shape: it has {_few(weights)}, and the network "
            f"{_few(expected)}"
        )
    fit.loaded, fit.spare = [*taken], [name for name in given if name not in expected]
    fit.head = _new_head(network, fit.shapes)
    network.load_state_dict(taken, strict=False)
    return fit


def _stripped(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without that prefix of their names by which most of them fit."""

    def without(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    prefixes = dict.fromkeys("".join(pair) for pair in product(PREFIXES, repeat=2))
    return max(map(without, prefixes), key=lambda named: len(named.keys() & expected.keys()))


def _renamed(network: nn.Module, given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of timm's layers that are norm and activation in one, under the names of what stands there now."""
    for name, module in network.named_modules():
        if type(module) is not nn.Sequential or [key for key, _ in module.named_children()] != ["norm", "drop", "act"]:
            continue
        inside = f"{name}.norm."
        for key in [key for key in expected if key.startswith(inside)]:
            if (outside := f"{name}.{key.removeprefix(inside)}") in given:
                given[key] = given.pop(outside)
    return given


def _new_head(network: nn.Module, shapes: Iterable[Shapes]) -> dict[str, tuple[int, int]]:
    """The layers of the head that have another width, with the file's width and the network's."""
    found: dict[str, tuple[int, int]] = {}
    with suppress(ValueError):  # a network whose head is not known has none to tell of
        parts = {*head(network).modules()}
        for name, there, here in shapes:
            layer, _, kind = name.rpartition(".")
            if kind == "weight" and there[1:] == here[1:] and network.get_submodule(layer) in parts:
                found[layer] = there[0], here[0]
    return found


def _of_layers(names: Iterable[str]) -> list[str]:
    """The layers whose running statistics are among the names, each once."""
    return [*dict.fromkeys(layer for layer, _, kind in (n.rpartition(".") for n in names) if kind in STATISTICS)]


def _others(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.rpartition(".")[2] not in STATISTICS]


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", … ({len(listed)} in all)" if len(listed) > MOST else ""
    return ", ".join(listed[:MOST]) + more
