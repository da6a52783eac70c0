"""What is measured of norm layers in a forward pass, against loops over channels in NumPy."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.cases import options, rest_slow
from hydra.utils import instantiate
from torch import nn

from normlab.config.options import read_option
from normlab.norms.common.watched import Watch, measures, scale_free

CHANNELS = 8
ACTIVATIONS = {"relu": nn.ReLU, "in place": lambda: nn.ReLU(inplace=True), "tanh": nn.Tanh, "silu": nn.SiLU}
ACTIVATIONS |= {"ends": lambda: nn.Hardtanh(0, 1), "none": nn.Identity}


def by_channel(x, last=False):
    """The values of each channel, as lists of Python numbers."""
    x = x.detach().double().movedim(-1 if last else 1, 0).flatten(1)
    return [channel.tolist() for channel in x]


def moments(values):
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / len(values)


def expected_of_output(weight, output, behind, last=False):
    """spread, dead and saturated, value by value."""
    channels = by_channel(output, last)
    everything = [value for channel in channels for value in channel]
    numbers = {"channels": len(channels), "spread": math.sqrt(moments(everything)[1])}
    faint = [False] * len(channels) if weight is None else [abs(value) < 0.01 for value in weight.tolist()]
    if behind is not None:
        pairs = [*zip(channels, by_channel(behind, last), strict=True)]
        silent = [math.sqrt(math.fsum(v * v for v in after) / len(after)) < 0.01 for _, after in pairs]
        flat = [math.sqrt(moments(after)[1]) < 0.01 * math.sqrt(moments(before)[1]) for before, after in pairs]
        numbers["saturated"] = sum(f and not s for f, s in zip(flat, silent, strict=True))
        faint = [f or s for f, s in zip(faint, silent, strict=True)]
    if weight is not None or behind is not None:
        numbers["dead"] = sum(faint)
    return numbers


def expected_drift(running_mean, running_var, x):
    """By all values of a channel, and the variance with Bessel's correction."""
    numbers, apart, ratios = {}, [], []
    for place, values in enumerate(by_channel(x)):
        mean, var = moments(values)
        var *= len(values) / (len(values) - 1)
        if running_mean is not None:
            apart.append(abs(float(running_mean[place]) - mean) / math.sqrt(var))
        if running_var is not None:
            ratios.append(float(running_var[place]) / var)
    if apart:
        numbers |= {"drift": sum(apart) / len(apart), "drift_max": max(apart)}
    if ratios:
        numbers |= {"variance_ratio": float(np.prod(ratios)) ** (1 / len(ratios))}
        numbers |= {"variance_ratio_min": min(ratios), "variance_ratio_max": max(ratios)}
    return numbers


def trained_like(layer, seed):
    """γ, β and statistics as no layer begins with: a γ near 0, a channel far down, one far up."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, values in [*layer.named_parameters(), *layer.named_buffers()]:
            if values.is_floating_point() and values.shape == (CHANNELS,):
                values.copy_(torch.rand(CHANNELS) + 0.5 if "var" in name or "square" in name else torch.randn(CHANNELS))
        if isinstance(getattr(layer, "weight", None), torch.Tensor):
            layer.weight[0] = 0.004
        if isinstance(getattr(layer, "bias", None), torch.Tensor):
            layer.bias[1], layer.bias[2] = -30, 30


def seen_by(network, layer, x):
    """The measures of one layer, and copies of what it got, gave, and had before."""
    kept = {"running": {key: None if b is None else b.clone() for key, b in layer._buffers.items()}}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: kept.update(x=args[0].clone())),
        layer.register_forward_hook(lambda _, args, output: kept.update(y=output.clone())),
    ]
    watch = Watch(network)
    with watch.running() as seen:
        network(x)
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    (only,) = seen.values()
    return {key: float(value) for key, value in measures(only).items()}, kept


def assert_measured(numbers, expected):
    others = {key for key in numbers if key.split("_")[0] in ("gamma", "beta")}
    assert numbers.keys() - others == expected.keys()
    assert numbers == pytest.approx({key: numbers[key] for key in others} | expected, rel=1e-4, abs=1e-6)


LAYERS = {
    "batch norm of torch": lambda: nn.BatchNorm2d(CHANNELS),
    "without affine": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "without running statistics": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "group": lambda: nn.GroupNorm(2, CHANNELS),
    "batch_channel": lambda: instantiate(read_option("norm", "batch_channel"))(CHANNELS, 2),
    "batch_fast": lambda: instantiate(read_option("norm", "batch_fast"))(CHANNELS, 2),
    "renorm": lambda: instantiate(read_option("norm", "renorm"))(CHANNELS, 2),
    "ghost": lambda: instantiate(read_option("norm", "ghost"))(CHANNELS, 2),
    "frozen": lambda: instantiate(read_option("norm", "frozen"))(CHANNELS, 2),
    "mabn": lambda: instantiate(read_option("norm", "mabn"))(CHANNELS, 2),
    "evonorm_b0": lambda: instantiate(read_option("norm", "evonorm_b0"))(CHANNELS, 2),
    "layer_channels": lambda: instantiate(read_option("norm", "layer_channels"))(CHANNELS, 2),
}


@pytest.mark.parametrize("seed", rest_slow(range(6), lambda case: case[0] == 0))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_measured_as_loops_over_channels_do(kind, activation, seed):
    torch.manual_seed(seed)
    layer, act = LAYERS[kind](), ACTIVATIONS[activation]()
    trained_like(layer, seed)
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), layer, act)
    numbers, kept = seen_by(network, layer, torch.randn(8, 3, 4 + seed, 5) * 3 + 1)
    inside = getattr(getattr(layer, "declaration", None), "activation", False)
    behind = kept["y"] if inside else None if activation == "none" else act(kept["y"].clone())
    weight = getattr(layer, "weight", None)
    expected = expected_of_output(weight, kept["y"], behind)
    running = kept["running"]
    expected |= expected_drift(running.get("running_mean"), running.get("running_var"), kept["x"])
    assert_measured(numbers, expected)
    if weight is not None:
        assert numbers["gamma_min"] == pytest.approx(min(weight.tolist()))
        assert numbers["gamma"] == pytest.approx(sum(weight.tolist()) / CHANNELS, rel=1e-5)
        assert numbers["beta_max"] == pytest.approx(max(layer.bias.tolist()))
        assert numbers["dead"] >= 1
    if activation == "ends" and weight is not None and not inside:
        assert numbers["saturated"] >= 1


def test_what_stands_between_a_layer_and_its_activation_makes_it_another_ones():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.relu = nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x):
            y = self.bn(x)
            y += x
            return self.relu(y)

    network = Residual()
    numbers, _ = seen_by(network, network.bn, torch.randn(4, 3, 5, 5))
    assert "saturated" not in numbers


def test_channels_that_do_not_vary_have_no_drift():
    layer, x = nn.BatchNorm2d(3), torch.randn(4, 3, 2, 2) / 10
    x[:, 1] = 5
    numbers, kept = seen_by(nn.Sequential(layer), layer, x)
    others = expected_drift(kept["running"]["running_mean"][::2], kept["running"]["running_var"][::2], x[:, ::2])
    assert {key: numbers[key] for key in others} == pytest.approx(others, rel=1e-4)
    numbers, _ = seen_by(nn.Sequential(layer), layer, torch.ones(4, 3, 2, 2))
    assert not {"drift", "variance_ratio"} & numbers.keys()


def test_a_layer_that_runs_twice_is_seen_the_first_time():
    layer = nn.BatchNorm1d(3)
    x = torch.randn(20, 3)
    alone, twice = nn.Sequential(copy.deepcopy(layer)), nn.Sequential(layer, nn.Linear(3, 3), layer)
    once, _ = seen_by(alone, alone[0], x)
    numbers, _ = seen_by(twice, layer, x)
    assert numbers == once


@pytest.mark.parametrize("norm", options("norm"))
def test_looking_changes_nothing(norm):
    option = instantiate(read_option("norm", norm))
    torch.manual_seed(0)
    network = nn.Sequential(option.conv2d(3, CHANNELS, 3), option(CHANNELS, 2), option.act(nn.ReLU()))
    other, x = copy.deepcopy(network), torch.randn(32, 3, 6, 6)
    with Watch(network).running():
        y = network(x)
    expected = other(x)
    assert torch.equal(y, expected)
    y.square().mean().backward()
    expected.square().mean().backward()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert one.grad is None if two.grad is None else torch.equal(one.grad, two.grad)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


def test_layers_of_timm_and_torchvision():
    layers = pytest.importorskip("timm.layers")
    from torchvision.ops import FrozenBatchNorm2d

    for make, weight in (
        (lambda: layers.BatchNormAct2d(CHANNELS), True),
        (lambda: layers.LayerNorm2d(CHANNELS), True),
        (lambda: layers.GroupNormAct(CHANNELS, 2), True),
        (lambda: FrozenBatchNorm2d(CHANNELS), True),
    ):
        layer = make()
        trained_like(layer, 3)
        act = getattr(layer, "act", None)
        given = {}
        if act is not None:
            act.inplace = False
            act.register_forward_pre_hook(lambda _, args, given=given: given.update(y=args[0].clone()))
        x = torch.randn(5, CHANNELS, 4, 4) * 2 + 1
        watch = Watch(nn.Sequential(layer))
        before = {key: value.clone() for key, value in layer.named_buffers()}
        with watch.running() as seen:
            output = layer(x)
        (only,) = seen.values()
        expected = expected_of_output(
            layer.weight if weight else None, given.get("y", output), output if given else None
        )
        expected |= expected_drift(before.get("running_mean"), before.get("running_var"), x)
        assert_measured({key: float(value) for key, value in measures(only).items()}, expected)


def test_layers_with_their_channels_last():
    for layer in (nn.LayerNorm(CHANNELS), nn.RMSNorm(CHANNELS)):
        trained_like(layer, 1)
        x = torch.randn(4, 6, CHANNELS) + 1
        with Watch(nn.Sequential(layer)).running() as seen:
            output = layer(x)
        numbers = {key: float(value) for key, value in measures(seen["0"]).items()}
        assert_measured(numbers, expected_of_output(layer.weight, output, None, last=True))


class Attends(nn.Module):
    """Layer norm in front of attention and of a gated unit, which are among torch's activations and act otherwise."""

    def __init__(self):
        super().__init__()
        self.ln1, self.attention = nn.LayerNorm(CHANNELS), nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
        self.ln2, self.glu, self.fc = nn.LayerNorm(CHANNELS), nn.GLU(), nn.Linear(CHANNELS // 2, CHANNELS)
        self.ln3, self.softmax = nn.LayerNorm(CHANNELS), nn.Softmax(-1)

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.attention(query=y, key=y, value=y)[0] + self.attention(y, y, y)[0]
        return self.softmax(self.ln3(self.fc(self.glu(self.ln2(x)))))


def test_attention_and_gates_are_no_activations():
    network = Attends()
    watch = Watch(network)
    with watch.running() as seen:
        network(torch.randn(4, 6, CHANNELS))
    assert [*seen] == ["ln1", "ln2", "ln3"]
    assert all("saturated" not in measures(each) and measures(each)["dead"] == 0 for each in seen.values())


class Network(nn.Module):
    """conv1 → bn1 → conv2 → gn, around which its input goes too, then conv3 → gn3 → conv4 → bn4, in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.gn = nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.conv3, self.gn3 = nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.conv4, self.bn4 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4).eval()
        for layer in (self.bn1, self.gn, self.gn3, self.bn4):
            layer.eps = 1e-12

    def forward(self, x):
        y = self.conv2(self.bn1(self.conv1(x)))
        y = y + self.gn(y)
        return self.bn4(self.conv4(self.gn3(self.conv3(y))))


def test_weights_are_free_of_scale_where_scaling_them_changes_nothing():
    """Only the parameters that are told can be scaled without another output, up to ε."""
    torch.manual_seed(0)
    network, x = Network().double(), torch.randn(8, 3, 6, 6, dtype=torch.float64) * 100
    free = scale_free(network, Watch(network).layers, x)
    assert {name: [id(p) for p in parameters] for name, parameters in free.items()} == {
        "bn1": [id(network.conv1.weight)],
        "gn3": [id(network.conv3.weight), id(network.conv3.bias)],
    }
    assert network.training
    assert not network.bn4.training
    before = network(x)
    for name, convolution in network.named_modules():
        if isinstance(convolution, nn.Conv2d):
            told = [p for parameters in free.values() for p in parameters if p in {*convolution.parameters()}]
            with torch.no_grad():
                for parameter in told or [convolution.weight]:
                    parameter *= 3
            same = torch.allclose(network(x), before, rtol=1e-4)
            assert same == bool(told), name
            with torch.no_grad():
                for parameter in told or [convolution.weight]:
                    parameter /= 3


def test_a_network_whose_way_depends_on_its_input_is_refused():
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn = nn.Linear(3, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.bn(self.fc(x)) if x.sum() > 0 else self.fc(x)

    network = Chooses()
    with pytest.raises(ValueError, match="reads values of its batch"):
        scale_free(network, Watch(network).layers, torch.randn(4, 3))
