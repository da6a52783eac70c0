"""The units of a network that is cut over processes.

It imports nothing of torch.distributed, which torch may be built without.
"""

from collections.abc import Iterator

from torch import nn

from normlab.norms.common.declaration import declaration
from normlab.tasks.depth import CONTAINERS


def check_shardable(network: nn.Module) -> None:
    """Raises ValueError for parameters that cannot be cut: single numbers, and parameters that two units share."""
    units = [name for name, _ in blocks(network)]
    users: dict[nn.Parameter, dict[str, str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if parameter.ndim == 0:
            raise ValueError(
                f"trainer.strategy=fsdp cannot cut {name}, which is a single number without an axis: give it the shape "
                "(1,), or use trainer.strategy=ddp"
            )
        unit = next((unit for unit in units if name.startswith(f"{unit}.")), "")
        users.setdefault(parameter, {})[unit] = name
    for names in users.values():
        if len(names) > 1:
            raise ValueError(
                f"{' and '.join(names.values())} are one parameter, in units that trainer.strategy=fsdp gathers at "
                "different times: use trainer.strategy=ddp"
            )


def blocks(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The elements, with parameters, of Sequentials and ModuleLists, by name; nested ones give their own elements."""
    for key, child in network.named_children():
        name = prefix + key
        if type(child) not in CONTAINERS and (type(network) in CONTAINERS or declaration(child)):
            if type(network) in CONTAINERS and any(True for _ in child.parameters()):
                yield name, child
        else:
            yield from blocks(child, f"{name}.")


def norm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The norm layers with parameters, by name, without layers inside another one."""
    layers: dict[str, nn.Module] = {}
    for name, layer in network.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in layers)
        if declaration(layer) and not inner and any(True for _ in layer.parameters()):
            layers[name] = layer
    return layers
