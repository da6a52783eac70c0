"""Every option of conf/norm against torch's functions and against what its layers declare."""

import copy
from runpy import run_path

import pytest
import torch
from helpers.cases import ROOT, options, rest_slow
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from normlab.config.compose import compose
from normlab.config.options import read_option
from normlab.norms.batch import Batch
from normlab.norms.common.declaration import TORCH, declaration
from normlab.norms.group import Group, default_groups
from normlab.norms.instance import Instance
from normlab.norms.layer import Layer

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 5)}


def layer_of(option: str, dims: int, *overrides: str) -> nn.Module:
    torch.manual_seed(0)
    layer = instantiate(compose([f"norm={option}", *overrides]).norm)(12, dims).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    for name, buffer in layer.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return layer


def sample(dims: int, samples: int = 16) -> torch.Tensor:
    return torch.randn(samples, 12, *SPACES[dims], dtype=torch.float64) * 3 + 2


def by_axes(x: torch.Tensor, layer: nn.Module, axes: tuple[int, ...], groups: int) -> torch.Tensor:
    """The formula, slowly: statistics over `axes` of (N, groups, C / groups, space)."""
    split = x.reshape(len(x), groups, x.shape[1] // groups, -1)
    mean = split.mean(axes, keepdim=True)
    variance = ((split - mean) ** 2).mean(axes, keepdim=True)
    y = ((split - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return y * layer.weight.view(shape) + layer.bias.view(shape)


def has_layer(option: str, dims: int) -> bool:
    try:
        instantiate(read_option("norm", option))(12, dims)
    except ValueError:
        return False
    return True


EXACT_GRADIENT = {"mabn": ["norm.window=1"]}  # with more, backward is an average over batches by design
EVERY = [(norm, dims) for norm in options("norm") for dims in SPACES if has_layer(norm, dims)]
CASES = rest_slow(EVERY, lambda case: case[1] == 2)


@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize(
    ("option", "axes", "groups"),
    [("batch", (0, 3), 12), ("instance", (3,), 12), ("group", (2, 3), 3), ("layer", (2, 3), 1)],
)
def test_training_output_follows_the_formula(option, axes, groups, dims):
    if has_layer(option, dims):
        layer, x = layer_of(option, dims), sample(dims)
        torch.testing.assert_close(layer(x), by_axes(x, layer, axes, groups), rtol=0, atol=1e-10)


@pytest.mark.parametrize("option", options("norm"))
def test_every_option_has_a_layer_for_images(option):
    assert has_layer(option, 2)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_axes_are_the_axes(option, dims):
    """A change to another sample reaches this one's output exactly where batch statistics are declared."""
    layer, x = layer_of(option, dims), sample(dims)
    other = x.clone()
    other[1:] += torch.randn_like(other[1:])
    found = declaration(layer)
    mixes = not torch.equal(layer(x)[0], layer(other)[0])
    assert mixes == (found is not None and found.batch_stats)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_running_statistics_are_what_evaluation_uses(option, dims):
    layer, x = layer_of(option, dims), sample(dims)
    trained = layer(x)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    evaluated = layer.eval()(x)
    found = declaration(layer)
    assert torch.equal(trained, evaluated) != (found is not None and found.batch_stats and found.running_stats)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_foldable_is_a_fixed_affine_map_of_each_channel(option, dims):
    layer, x = layer_of(option, dims), sample(dims)
    layer(x)
    layer.eval()
    a, b = layer(torch.zeros_like(x)), layer(torch.ones_like(x))
    affine = torch.allclose(layer(x), a + (b - a) * x, atol=1e-9)
    found = declaration(layer)
    assert affine == (found is None or found.foldable)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_values_are_the_fewest_that_have_a_variance(option, dims):
    """With no more values than a statistic has dimensions layers refuse; with more they do not normalise x to 0."""
    layer = layer_of(option, dims)
    found = declaration(layer)
    if found is None or not found.axes:
        return
    most = max(found.samples, found.dimension)
    for samples in (found.samples, found.samples + 1, most, most + 1):
        for space in (1, 2):
            x = torch.randn(samples, 12, *[space] * dims, dtype=torch.float64)
            if found.values(x.shape) > found.dimension:
                shift = layer.bias if hasattr(layer, "bias") else torch.zeros(12, dtype=torch.float64)
                assert layer(x).sub(shift.view(1, -1, *[1] * dims)).abs().max() > 1e-3
            else:
                with pytest.raises(ValueError, match=f"Expected more than {found.dimension} "):
                    layer(x)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_samples_are_the_fewest_that_train(option, dims):
    layer = layer_of(option, dims)
    found = declaration(layer)
    if found is not None and found.samples > 1:
        layer(sample(dims, found.samples))
        with pytest.raises(ValueError, match=f"norm={option}: .* is more than the {found.samples - 1} samples"):
            layer(sample(dims, found.samples - 1))


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_declared_selective_layers_leave_parameters_out_of_a_batch(option, dims):
    layer = layer_of(option, dims)
    layer(sample(dims).requires_grad_()).sum().backward()
    found = declaration(layer)
    left_out = any(parameter.grad is None for parameter in layer.parameters())
    assert left_out == (found is not None and found.selective)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_state_survives_a_round_trip_and_a_deep_copy(option, dims):
    layer, x = layer_of(option, dims), sample(dims)
    layer(x)
    loaded = instantiate(compose([f"norm={option}"]).norm)(12, dims).double()
    loaded.load_state_dict(layer.state_dict())
    copied = copy.deepcopy(layer)
    evaluated, trained = layer.eval()(x), layer.train()(x)
    for other in (loaded, copied):
        assert torch.equal(other.eval()(x), evaluated)
        assert torch.equal(other.train()(x), trained)


@pytest.mark.parametrize(("option", "dims"), CASES)
def test_gradients_are_those_of_finite_differences(option, dims):
    layer, x = layer_of(option, dims, *EXACT_GRADIENT.get(option, [])), sample(dims).requires_grad_()
    parameters = list(layer.parameters())

    def fresh(*_):
        """The layer with a copy of its state, which each of many calls would move on."""
        return torch.func.functional_call(layer, {name: b.clone() for name, b in layer.named_buffers()}, (x,))

    assert torch.autograd.gradcheck(fresh, (x, *parameters), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("option", options("norm"))
def test_channels_last_gives_the_same_and_stays(option):
    layer, x = layer_of(option, 2), sample(2)
    expected = copy.deepcopy(layer)(x)
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    if type(layer) not in TORCH:  # torch's InstanceNorm2d does not keep it
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("option", options("norm"))
def test_autocast_keeps_statistics_in_float32(option):
    layer, x = layer_of(option, 2).float(), sample(2).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.bfloat16())
    torch.testing.assert_close(y.float(), copy.deepcopy(layer)(x), rtol=0.05, atol=0.1)
    assert all(b.dtype == torch.float32 for b in layer.buffers() if b.is_floating_point())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("option", options("norm"))
def test_a_large_mean_does_not_cancel_the_variance(option, layout):
    """At a mean of 1e4 in float32, E[x²] - E[x]² would be 0 or negative."""
    layer = layer_of(option, 2)
    found = declaration(layer)
    if found is None or not found.axes:
        return
    x = torch.randn(16, 12, 8, 8, dtype=torch.float64) + 1e4
    expected = copy.deepcopy(layer)(x)
    y = layer.float()(x.float().to(memory_format=layout)).double()
    cancels = (
        isinstance(layer, nn.GroupNorm) and layout == torch.channels_last
    )  # torch's own kernel; when it is mended, say
    assert cancels == (not torch.allclose(y, expected, rtol=0.01, atol=0.05))


@pytest.mark.slow
@pytest.mark.parametrize("option", options("norm"))
def test_compiled_gives_the_same_output_and_statistics(option):
    layer, x = layer_of(option, 2), sample(2)
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), plain(x), rtol=0, atol=1e-12)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value)


@pytest.fixture
def fresh_compiler():
    """Options share torch's layers, and a layer's code is compiled a few times only."""
    torch.compiler.reset()


NEIGHBOURS = [(norm, kind) for norm in options("norm") for kind in ("conv2d", "linear")]


def neighbour(option: str, kind: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """The layer that an option puts in front of its norm, torch's of the same shape, and an input."""
    torch.manual_seed(0)
    norm = instantiate(compose([f"norm={option}"]).norm)
    if kind == "linear":
        return norm.linear(6, 8).double(), nn.Linear(6, 8).double(), torch.randn(5, 6, dtype=torch.float64)
    arguments = {"in_channels": 6, "out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    return norm.conv2d(**arguments).double(), nn.Conv2d(**arguments).double(), x


@pytest.mark.parametrize(("option", "kind"), NEIGHBOURS)
def test_neighbours_are_torchs_layers_with_their_state_and_copies(option, kind):
    layer, plain, x = neighbour(option, kind)
    assert isinstance(layer, type(plain))
    assert layer(x).shape == plain(x).shape
    state = layer.state_dict()
    extra = state.keys() - plain.state_dict().keys()
    assert extra <= dict(layer.named_parameters()).keys()
    plain.load_state_dict({key: value for key, value in state.items() if key not in extra})
    copied = copy.deepcopy(layer)
    layer.load_state_dict(plain.state_dict(), strict=not extra)
    assert torch.equal(copied(x), layer(x))
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize(("option", "kind"), NEIGHBOURS)
def test_gradients_of_neighbours_are_those_of_finite_differences(option, kind):
    layer, _, x = neighbour(option, kind)
    parameters = list(layer.parameters())
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x.requires_grad_(), *parameters), atol=1e-6, fast_mode=True)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("option", "kind"), NEIGHBOURS)
def test_neighbours_under_autocast_and_compiled(option, kind):
    layer, _, x = neighbour(option, kind)
    expected = layer(x)
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=1e-12)
    layer, x = layer.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("option", options("norm"))
def test_convolutions_in_channels_last_give_the_same_and_stay(option):
    layer, _, x = neighbour(option, "conv2d")
    expected = layer(x)
    y = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_batch_is_torchs_own_class():
    for dims, kind in enumerate((nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        assert type(Batch()(4, dims)) is kind


def test_batch_without_momentum_is_a_cumulative_average():
    layer = Batch(momentum=None)(4, 0).double()
    batches = [torch.randn(5, 4, dtype=torch.float64) + i for i in range(3)]
    for x in batches:
        layer(x)
    torch.testing.assert_close(layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0))


def test_batch_without_running_statistics_is_not_foldable():
    found = declaration(Batch(track_running_stats=False)(4, 2))
    assert not found.running_stats
    assert not found.foldable


@pytest.mark.parametrize(
    ("features", "groups"),
    [(20, 5), (64, 16), (128, 32), (256, 32), (10, 2), (7, 1), (3, 1), (1, 1), (13, 1), (96, 24)],
)
def test_default_groups(features, groups):
    assert default_groups(features) == groups


def test_groups_must_divide():
    with pytest.raises(ValueError, match="num_groups=3 does not divide 64"):
        Group(num_groups=3)(64, 2)


def test_layer_norm_with_space_is_torchs_over_channels_and_space():
    x = sample(2)
    torch.testing.assert_close(Layer()(12, 2).double()(x), F.layer_norm(x, x.shape[1:]))


def test_instance_norm_needs_space():
    with pytest.raises(ValueError, match="over space"):
        Instance()(12, 0)


@pytest.mark.parametrize("option", options("norm"))
def test_refusals_name_the_norm(option):
    norm = instantiate(read_option("norm", option))
    with pytest.raises(ValueError, match=f"norm={option}: num_features=0"):
        norm(0, 2)
    with pytest.raises(ValueError, match=f"norm={option}: dims=4"):
        norm(8, 4)
    with pytest.raises(ValueError, match=r"model.order=sideways"):
        norm.order("sideways")
    with pytest.raises(ValueError, match="momentum=1.5"):
        Batch(momentum=1.5)


def test_an_option_with_an_activation_replaces_the_networks_and_stays_off_the_output():
    class Fused(Batch):
        carries_activation = True

    assert isinstance(Fused().act(nn.ReLU()), nn.Identity)
    with pytest.raises(ValueError, match="contains an activation"):
        Fused()(8, 0, act=False)
    with pytest.raises(ValueError, match="order=act_norm"):
        Fused().order("act_norm")


def test_a_subclass_of_torchs_layer_is_not_taken_for_it():
    class Other(nn.BatchNorm2d):
        pass

    assert declaration(Other(3)) is None
    assert declaration(nn.ReLU()) is None


def test_the_catalogue_is_up_to_date():
    written = (ROOT / "docs" / "norms.md").read_text()
    assert written == run_path(str(ROOT / "scripts" / "norms_page.py"))["catalogue"](), (
        "run: python scripts/norms_page.py > docs/norms.md"
    )
    assert all(f"| `{option}` |" in written for option in options("norm"))
