"""Estimated statistics against those of all inputs at once, in float64, and against torch's update_bn."""

import copy

import pytest
import timm
import torch
import torchvision
from helpers import warm
from helpers.cases import options
from helpers.estimating import batches
from helpers.networks import SHAPE, built
from hydra.utils import instantiate
from torch import nn
from torch.optim.swa_utils import update_bn

from normlab import declaration, estimate_statistics, freeze
from normlab.config.options import read_option
from normlab.norms.common.estimate import keeps_statistics

NORMS = [name for name in options("norm") if keeps_statistics(instantiate(read_option("norm", name))(16, 2))]


def inputs(network: nn.Module, of_modules, train: bool) -> dict[str, torch.Tensor]:
    """The inputs of norm layers for all samples, joined; in training, each batch is normalised by itself."""
    seen: dict[str, list[torch.Tensor]] = {}
    layers = {name: module for name, module in network.named_modules() if keeps_statistics(module)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].detach()))
        for name, layer in layers.items()
    ]
    network.eval()
    for layer in layers.values():
        layer.train(train)
    with torch.no_grad():
        for batch in of_modules:
            network(batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(values).double() for name, values in seen.items()}


def assert_of(layer: nn.Module, x: torch.Tensor) -> None:
    """The running statistics of a layer are those of all its inputs `x`."""
    axes = (0, *range(2, x.ndim))
    buffers = {name: buffer for name, buffer in layer.named_buffers(recurse=False) if name.startswith("running_")}
    close = {"rtol": 2e-4, "atol": 2e-5, "check_dtype": False}
    if "running_mean" in buffers:
        torch.testing.assert_close(buffers["running_mean"], x.mean(axes), **close)
    if "running_var" in buffers:
        torch.testing.assert_close(buffers["running_var"], x.var(axes), **close)
    if "running_square" in buffers:
        torch.testing.assert_close(buffers["running_square"], x.square().mean(axes), **close)
    if "running_whitening" in buffers:
        columns = x.transpose(0, 1).reshape(-1, layer.size, x.numel() // x.shape[1])
        wanted = torch.stack([torch.cov(each, correction=0) for each in columns]) + layer._eps * torch.eye(layer.size)
        whitener = buffers["running_whitening"].double()
        eye = torch.eye(layer.size, dtype=torch.float64).expand_as(wanted)
        torch.testing.assert_close(whitener @ wanted @ whitener, eye, rtol=0, atol=1e-3)


def exactly_whitening(network: nn.Module) -> nn.Module:
    """Lets whitening take the exact root, so that what it gives can be checked."""
    for layer in network.modules():
        if hasattr(layer, "running_whitening"):
            layer.option = type(layer.option)(group_size=layer.size, method="eigh")
    return network


@pytest.mark.parametrize("norm", NORMS)
def test_in_order_every_layer_has_the_statistics_of_what_it_gets_in_evaluation(norm):
    network = exactly_whitening(built("resnet", norm))
    names = estimate_statistics(network, batches(), in_order=True)
    seen = inputs(network, batches(), train=False)
    assert names == list(seen)
    for name, x in seen.items():
        assert_of(network.get_submodule(name), x)


@pytest.mark.parametrize("norm", NORMS)
def test_at_once_the_first_layer_has_the_statistics_of_all_its_inputs(norm):
    network = exactly_whitening(built("resnet", norm))
    assert len(estimate_statistics(network, batches())) > 3
    name, x = next(iter(inputs(network, batches(), train=False).items()))
    assert_of(network.get_submodule(name), x)


@pytest.mark.parametrize("make", [lambda: built("resnet", "batch"), lambda: torchvision.models.resnet18(num_classes=4)])
def test_at_once_batch_norm_normalises_as_in_training(make):
    torch.manual_seed(0)
    network = make()
    training = inputs(copy.deepcopy(network), batches(), train=True)
    estimate_statistics(network, batches())
    for name, x in training.items():
        assert_of(network.get_submodule(name), x)


@pytest.mark.parametrize(
    "model",
    ["mobilenetv3_small_050", *(pytest.param(x, marks=pytest.mark.slow) for x in ("efficientnet_b0", "resnet18"))],
)
def test_networks_of_timm_whose_norms_are_subclasses_of_torchs(model):
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=3)
    x = [torch.randn(4, 3, 32, 32) for _ in range(2)]
    names = estimate_statistics(network, x, in_order=True)
    assert len(names) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for name, seen in inputs(network, x, train=False).items():
        assert_of(network.get_submodule(name), seen)


def test_of_equal_batches_means_are_those_of_update_bn():
    network = built("mynet", "batch")
    other = copy.deepcopy(network)
    equal = [batch for batch in batches() if len(batch) == 8]
    estimate_statistics(network, equal)
    update_bn(equal, other)
    for name, values in other.state_dict().items():
        if name.endswith("running_mean"):
            torch.testing.assert_close(network.state_dict()[name], values, rtol=1e-4, atol=1e-6)


def test_instance_norm_keeps_the_variance_within_a_sample():
    layer = nn.InstanceNorm2d(3, track_running_stats=True, momentum=1.0)
    other = copy.deepcopy(layer)
    network = nn.Sequential(layer, nn.Conv2d(3, 1, 1))
    x = torch.cat(batches())
    assert estimate_statistics(network, batches()) == ["0"]
    other.train()(x)
    torch.testing.assert_close(layer.running_mean, other.running_mean)
    torch.testing.assert_close(layer.running_var, other.running_var)


def test_nothing_else_changes_and_dropout_is_off():
    network = nn.Sequential(nn.Dropout(0.9), built("mynet", "renorm")).train()
    network.get_submodule(next(name for name, module in network.named_modules() if declaration(module))).eval()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    samples = batches()
    random = torch.get_rng_state()
    estimate_statistics(network, iter(samples))
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name]) == ("running_" not in name), name


def test_a_layer_that_runs_twice_gets_the_statistics_of_both_inputs():
    layer = nn.BatchNorm1d(2)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer = nn.Linear(2, 2), layer

        def forward(self, x):
            return self.layer(self.layer(self.first(x)) * 2 + 1)

    torch.manual_seed(0)
    network, x = Twice(), torch.randn(40, 2)
    estimate_statistics(network, x.split(10), in_order=True)
    first = network.first(x).detach()
    both = torch.cat([first, nn.BatchNorm1d(2).eval()(first) * 2 + 1])  # a layer that evaluates as this one did before
    torch.testing.assert_close((layer.running_mean, layer.running_var), (both.mean(0), both.var(0)))


def test_a_frozen_part_stays():
    network = built("resnet", "batch").train()
    freeze(network, [name for name, module in network.named_modules() if keeps_statistics(module)][:3])
    names = estimate_statistics(network, batches())
    frozen = {name for name, module in network.named_modules() if keeps_statistics(module) and not module.training}
    assert len(frozen) == 3
    assert frozen.isdisjoint(names)


def test_a_number_of_samples_ends_the_pass():
    network, taken = built("mynet", "batch"), []
    estimate_statistics(network, (taken.append(batch) or batch for batch in batches()), samples=9)
    assert len(taken) == 2


def test_a_compiled_network_is_seen_too():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    x = torch.randn(20, 2)
    network.compile(backend="eager")
    with torch.no_grad():
        network(x)
    estimate_statistics(network, [x])
    torch.testing.assert_close(network[1].running_mean, network[0](x).mean(0))


def with_nan() -> list[torch.Tensor]:
    return [torch.ones(4, *SHAPE), torch.full((4, *SHAPE), float("nan"))]


@pytest.mark.parametrize(
    ("norm", "loader", "keys", "message"),
    [
        ("group", [torch.zeros(2, *SHAPE)], {}, "MyNet has no norm layer with running statistics to estimate"),
        ("frozen", [torch.zeros(2, *SHAPE)], {}, "has no norm layer with running statistics"),
        ("batch", [], {}, "the loader has no batch"),
        ("batch", with_nan(), {}, r"shape \(4, .*: its inputs hold NaN or inf"),
        ("whitening", with_nan(), {}, r"shape \(4, .*: its inputs hold NaN or inf"),
        ("batch", with_nan(), {"in_order": True}, ": its inputs hold NaN or inf"),
        ("batch", iter([torch.zeros(2, *SHAPE)]), {"in_order": True}, "a loader that can be passed more than once"),
    ],
)
def test_refusals_change_nothing(norm, loader, keys, message):
    network = built("mynet", norm)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=message):
        estimate_statistics(network, loader, **keys)
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


def test_a_single_value_of_a_channel_is_refused():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"^1, in a batch of shape \(1, 2\): a single value of each channel"):
        estimate_statistics(network, torch.randn(5, 2).split(2))


def test_a_network_that_is_frozen_is_refused():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    freeze(network)
    with pytest.raises(ValueError, match=r"all norm layers with running statistics are frozen \(1\): thaw them first"):
        estimate_statistics(network, [torch.randn(5, 2)])


@pytest.mark.slow
@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_estimate_what_one_does_with_all_batches(tmp_path, norm, in_order):
    done = warm.call("helpers.estimating.together", str(tmp_path), norm, in_order).wait()
    assert done.returncode == 0, done.stderr
    network = built("resnet", norm)
    estimate_statistics(network, batches(), in_order=in_order)
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt")
        for name, values in network.state_dict().items():
            torch.testing.assert_close(
                state[name], values, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
