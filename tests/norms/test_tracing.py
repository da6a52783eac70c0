"""What tools that record a network, or run it without values, do with every norm."""

import copy
from collections.abc import Collection

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from normlab.config.options import read_option
from normlab.norms.common.replace import is_drop_in, replace_norms
from normlab.norms.common.synchronise import Synchronise
from normlab.norms.whitening import Whitening

FEATURES = 8
NORMS = options("norm")
KEYS = {  # bounds that are open, batches of several pieces, and a past that counts
    "renorm": {"start": 0, "end": 1},
    "ghost": {"size": 2},
    "mabn": {"window": 2, "average_from": 0, "start": 0},
    "cross_iteration": {"window": 3, "start": 0},
}
CUTTING = ("ghost", "split")  # cut a batch into a number of pieces that a graph has fixed

each_norm = pytest.mark.parametrize("name", NORMS)


class Every(nn.Module):
    """Layers of several options side by side, so that one graph is recorded for all of them; (norms, N, C, *space)."""

    def __init__(self, names: Collection[str]):
        super().__init__()
        self.layers = nn.ModuleList(layer_of(name) for name in names)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([layer(x) for layer in self.layers])


def few_and_all(*few: str, leave_out: Collection[str] = ()):
    """A walk over all norms, and over a few in the default suite."""
    every = pytest.param([name for name in NORMS if name not in leave_out], marks=pytest.mark.slow, id="all")
    return pytest.mark.parametrize("names", [*([pytest.param(few, id=",".join(few))] if few else []), every])


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


@each_norm
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_runs_on_meta(name, train):
    """Profilers and memory estimates send shapes through a network, without values."""
    layer, x = layer_of(name).to("meta").train(train), torch.empty(6, FEATURES, 4, 4, device="meta")
    assert layer(x).shape == x.shape


BATCHES = (8, 10, 13)
DYNAMIC = ({0: torch.export.Dim("n", min=2, max=64)},)


def batch(samples: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(samples, FEATURES, 4, 4, dtype=dtype) * 2 + 1


@few_and_all("switchable", "evonorm_s0", "whitening")
def test_an_exported_layer_evaluates_batches_of_any_size(names):
    layers = Every(names)
    layers(batch(8))
    exported = torch.export.export(layers.eval(), (batch(8),), dynamic_shapes=DYNAMIC).module()
    for samples in BATCHES:
        x = batch(samples)
        torch.testing.assert_close(exported(x), layers(x), rtol=0, atol=1e-4)


@few_and_all()
def test_an_onnx_graph_evaluates_batches_of_any_size(names):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    layers = Every(names)
    layers(batch(8))
    program = torch.onnx.export(layers.eval(), (batch(8),), dynamic_shapes=DYNAMIC, verbose=False)
    for samples in BATCHES:
        x = batch(samples)
        torch.testing.assert_close(program(x)[0], layers(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")  # deprecated; of the checks
def test_jit_traces_layers_for_batches_of_any_size():
    layers = Every(NORMS)
    layers(batch(8))
    traced = torch.jit.trace(layers.eval(), (batch(8),))
    for samples in BATCHES:
        x = batch(samples)
        torch.testing.assert_close(traced(x), layers(x), rtol=0, atol=1e-5)


def steps(layers: nn.Module, network: nn.Module, sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Outputs, gradients and the final state of training, where `network` runs what `layers` holds."""
    found = {}
    torch.manual_seed(1)
    for step, samples in enumerate(sizes):
        x = (batch(samples, torch.float64) + step).requires_grad_()
        y = network(x)
        wanted, upstream = {"x": x, **dict(layers.named_parameters())}, torch.randn(y.shape, dtype=y.dtype)
        gradients = torch.autograd.grad(y, list(wanted.values()), upstream, allow_unused=True, materialize_grads=True)
        found |= {f"y {step}": y}
        found |= {f"of {name} {step}": gradient for name, gradient in zip(wanted, gradients, strict=True)}
    return found | layers.state_dict()


@few_and_all("switchable", "frn", leave_out=("mabn", *CUTTING))
def test_a_trained_export_has_the_layers_gradients(names):
    """An exported layer trains on: its gradients are autograd's of what was recorded."""
    layers = Every(names).double()
    plain = copy.deepcopy(layers)
    exported = torch.export.export(layers, (batch(8, torch.float64),), dynamic_shapes=DYNAMIC).module()
    torch.testing.assert_close(steps(exported, exported, BATCHES), steps(plain, plain, BATCHES), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CUTTING)
def test_a_trained_export_of_parts_has_the_layers_gradients_at_its_size(name):
    layers = Every([name]).double()
    plain, sizes = copy.deepcopy(layers), (8, 8)
    exported = torch.export.export(layers, (batch(8, torch.float64),)).module()
    torch.testing.assert_close(steps(exported, exported, sizes), steps(plain, plain, sizes), rtol=0, atol=1e-9)


def test_an_export_whose_gradient_would_be_wrong_is_refused():
    with pytest.raises(ValueError, match="norm=mabn: torch.export does not record the gradient"):
        torch.export.export(layer_of("mabn"), (batch(8),))
    with pytest.raises(ValueError, match="norm=whitening, method=eigh: torch.export does not record the gradient"):
        torch.export.export(Whitening(method="eigh")(FEATURES, 2), (batch(8),))


@few_and_all("mabn", leave_out=CUTTING)
def test_compiled_layers_have_the_layers_gradients_and_one_graph_for_all_batch_sizes(names):
    torch.compiler.reset()
    graphs = []

    def counted(graph: torch.fx.GraphModule, inputs: list):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    layers = Every(names).double()
    plain, compiled = copy.deepcopy(layers), torch.compile(layers, backend=counted, fullgraph=True)
    found, expected = steps(layers, compiled, BATCHES), steps(plain, plain, BATCHES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert len(graphs) <= 2, "torch's own take one graph, and one for any size"


@few_and_all("ghost", "renorm")
def test_compiled_gradients_stay_in_channels_last(names):
    """A backward pass that asks for a layout is handed contiguous copies by torch.compile, and gives one on."""
    for name in names:
        torch.compiler.reset()
        layer = layer_of(name).double()
        plain, compiled = copy.deepcopy(layer), torch.compile(layer, backend="aot_eager", fullgraph=True)
        x = batch(8, torch.float64).to(memory_format=torch.channels_last).requires_grad_()
        upstream = torch.randn_like(x)
        expected = gradients(plain, plain(x), x, upstream)
        found = gradients(layer, compiled(x), x, upstream)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        assert found[0].stride() == expected[0].stride(), name


def gradients(layer: nn.Module, y: torch.Tensor, x: torch.Tensor, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of the input first, then of the parameters."""
    wanted = [x, *layer.parameters()]
    return torch.autograd.grad(y, wanted, upstream, allow_unused=True, materialize_grads=True)
