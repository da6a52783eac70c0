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
KEYS = {  # bounds that are open, batches of several parts, and a past that counts
    "renorm": {"start": 0, "end": 1},
    "ghost": {"size": 2},
    "mabn": {"window": 2, "average_from": 0, "start": 0},
    "cross_iteration": {"window": 3, "start": 0},
}
PARTS = {"ghost", "split"}  # cut a batch into a number of parts that a graph has fixed

each_norm = pytest.mark.parametrize("name", NORMS)


def each_norm_but_slowly(*fast: str, names: list[str] = NORMS):
    """Long walks over all norms, of which the default suite takes the `fast` ones."""
    assert set(fast) <= set(names)
    return pytest.mark.parametrize("name", [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names])


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


@each_norm_but_slowly("ghost", names=drop_ins())
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


@each_norm
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_runs_on_meta(name, train):
    """As profilers and memory estimates send shapes through a network, without values."""
    layer, x = layer_of(name).to("meta").train(train), torch.empty(6, FEATURES, 4, 4, device="meta")
    assert layer(x).shape == x.shape


BATCHES = (8, 10, 11, 13)
DYNAMIC = ({0: torch.export.Dim("n", min=2, max=64)},)


def batch(samples: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(samples, FEATURES, 4, 4, dtype=dtype) * 2 + 1


@each_norm_but_slowly("switchable", "evonorm_s0", "whitening")
def test_an_exported_layer_evaluates_batches_of_any_size(name):
    layer = layer_of(name)
    layer(batch(8))
    exported = torch.export.export(layer.eval(), (batch(8),), dynamic_shapes=DYNAMIC).module()
    for samples in BATCHES:
        x = batch(samples)
        torch.testing.assert_close(exported(x), layer(x), rtol=0, atol=1e-5)


@each_norm_but_slowly()
def test_an_onnx_graph_evaluates_batches_of_any_size(name):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    layer = layer_of(name)
    layer(batch(8))
    program = torch.onnx.export(layer.eval(), (batch(8),), dynamic_shapes=DYNAMIC, verbose=False)
    for samples in BATCHES:
        x = batch(samples)
        torch.testing.assert_close(program(x)[0], layer(x), rtol=1e-4, atol=1e-4)


def steps(layer: nn.Module, network: nn.Module, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """Outputs, gradients and the final state of training, where `network` runs what `layer` holds."""
    found = []
    torch.manual_seed(1)
    for step, samples in enumerate(sizes):
        x = (batch(samples, torch.float64) + step).requires_grad_()
        y = network(x)
        parameters = list(layer.parameters())
        found += [y, *torch.autograd.grad(y, [x, *parameters], torch.randn_like(y), allow_unused=True)]
    return [value for value in (*found, *layer.state_dict().values()) if value is not None]


@each_norm_but_slowly("switchable", "frn")
def test_a_trained_export_has_the_layers_gradients(name):
    """An exported layer trains on: its gradients are autograd's of what was recorded."""
    layer = layer_of(name).double()
    plain = copy.deepcopy(layer)
    if name == "mabn":
        with pytest.raises(ValueError, match="norm=mabn: torch.export does not record its gradient"):
            torch.export.export(layer, (batch(8, torch.float64),))
        return
    sizes = (8, 8, 8) if name in PARTS else BATCHES
    shapes = None if name in PARTS else DYNAMIC
    exported = torch.export.export(layer, (batch(8, torch.float64),), dynamic_shapes=shapes).module()
    torch.testing.assert_close(steps(exported, exported, sizes), steps(plain, plain, sizes), rtol=0, atol=1e-9)


@each_norm_but_slowly("mabn")
def test_a_compiled_layer_has_the_layers_gradients_and_one_graph_for_all_batch_sizes(name):
    torch.compiler.reset()
    graphs = []

    def counted(graph: torch.fx.GraphModule, inputs: list):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    layer = layer_of(name).double()
    plain, compiled = copy.deepcopy(layer), torch.compile(layer, backend=counted, fullgraph=True)
    found, expected = steps(layer, compiled, BATCHES), steps(plain, plain, BATCHES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert len(graphs) <= (len(BATCHES) if name in PARTS else 2), "torch's own take one graph, and one for any size"
