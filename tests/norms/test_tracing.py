"""What tools that record a network, or run it without values, do with every norm."""

import copy

import pytest
import torch
from conftest import options
from hydra.utils import instantiate
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from normlab.config import read_option
from normlab.norms.replace import is_drop_in, replace_norms
from normlab.norms.synchronise import Synchronise

FEATURES = 8
NORMS = options("norm")
KEYS = {"renorm": {"start": 0, "end": 1}, "ghost": {"size": 2}}  # bounds that are open; batches of several parts

each_norm = pytest.mark.parametrize("name", NORMS)


def layer_of(name: str, dims: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layer = instantiate(read_option("norm", name), **KEYS.get(name, {}))(FEATURES, dims)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def network_of(name: str) -> nn.Module:
    """Layers of a network that an option makes, one after the other."""
    torch.manual_seed(0)
    norm = instantiate(read_option("norm", name), **KEYS.get(name, {}))
    first = [norm.conv2d(3, FEATURES, 3), norm(FEATURES, dims=2), norm.act(nn.ReLU()), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*first, nn.Flatten(), norm.linear(FEATURES * 4, FEATURES), nn.Linear(FEATURES, 2))


def drop_ins() -> list[str]:
    made = {name: instantiate(read_option("norm", name)) for name in NORMS}
    return [name for name, norm in made.items() if is_drop_in(norm, norm(FEATURES, 2))]


@each_norm
def test_fx_keeps_the_layers_whole_and_follows_their_mode(name):
    """A graph that was recorded in training evaluates as the network does, with one state for both."""
    network, x = network_of(name), torch.randn(6, 3, 7, 7)
    expected = copy.deepcopy(network)
    traced = torch.fx.symbolic_trace(network)
    assert torch.equal(traced(x), expected(x))
    assert torch.equal(traced.eval()(x), expected.eval()(x))
    for key, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_fx_keeps_synchronised_layers_of_torch_whole():
    network = Synchronise().apply(network_of("batch"))
    torch.fx.symbolic_trace(network)


@pytest.mark.parametrize("name", [n if n == "ghost" else pytest.param(n, marks=pytest.mark.slow) for n in drop_ins()])
def test_torchvisions_feature_extractor_takes_a_network_with_replaced_norms(name):
    network = resnet18(num_classes=2)
    replace_norms(network, instantiate(read_option("norm", name), **KEYS.get(name, {})))
    extractor = create_feature_extractor(network, ["layer1.0.bn2", "layer2"])
    x = torch.randn(2, 3, 64, 64)
    features = extractor.eval()(x)
    seen = {}
    network.get_submodule("layer1.0.bn2").register_forward_hook(lambda *found: seen.update(bn2=found[2].clone()))
    network.get_submodule("layer2").register_forward_hook(lambda *found: seen.update(layer2=found[2]))
    network.eval()(x)
    assert torch.equal(features["layer2"], seen["layer2"])
    assert torch.equal(features["layer1.0.bn2"], seen["bn2"])
