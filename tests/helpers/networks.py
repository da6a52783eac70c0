"""Networks of every option, with statistics and parameters as training leaves them."""

import torch
from hydra.utils import get_object, instantiate
from torch import nn

from helpers.cases import options
from normlab import declaration
from normlab.config.options import read_option
from normlab.norms.common.probe import check_forward

SHAPE = (3, 8, 8)


def is_foldable(module: nn.Module) -> bool:
    declared = declaration(module)
    return declared is not None and declared.foldable


def foldable_norms() -> list[str]:
    return [name for name in options("norm") if is_foldable(instantiate(read_option("norm", name))(16, 2))]


def built(model: str, norm: str, order: str | None = None) -> nn.Module:
    """A network with statistics, γ and β as after training. Raises ValueError where the two do not go together."""
    torch.manual_seed(0)
    node = read_option("model", model)
    keys = {key: value for key, value in node.items() if not str(key).startswith("_")}
    keys |= {"order": order} if order else {}
    network = get_object(node["_target_"])(
        norm=instantiate(read_option("norm", norm)), input_shape=SHAPE, out_features=10, **keys
    )
    check_forward(network, SHAPE, 10)
    return trained(network, torch.randn(24, *SHAPE) * 2 + 1)


def trained(network: nn.Module, x: torch.Tensor) -> nn.Module:
    for _ in range(2):
        network.train()(x)
    with torch.no_grad():
        for layer in filter(is_foldable, network.modules()):
            for parameter in layer.parameters(recurse=False):
                parameter += torch.randn_like(parameter) / 2
    return network
