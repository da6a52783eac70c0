"""`fold` gives the same outputs without norms: every network and norm, and networks made to lead it astray."""

import copy
import itertools

import pytest
import torch
from helpers.cases import options, rest_slow
from helpers.networks import SHAPE, built, foldable_norms, is_foldable, trained
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from normlab import fold, replace_norms
from normlab.norms.common.fold import ChannelMap
from normlab.norms.ghost import Ghost


def check_equal(network: nn.Module, folded: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        expected, found = network.eval()(x), folded(x)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def maps(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, ChannelMap)]


@pytest.mark.parametrize(
    ("model", "norm"),
    rest_slow(itertools.product(options("model"), foldable_norms()), lambda pair: "batch" in pair or "net" in pair),
)
def test_every_network_folds_every_norm_that_declares_it(model, norm):
    try:
        network = built(model, norm)
    except ValueError as error:
        pytest.skip(str(error))
    assert any(map(is_foldable, network.modules()))
    state = copy.deepcopy(network.state_dict())
    sample = torch.zeros(2, *SHAPE)
    before = torch.get_rng_state()
    folded = fold(network, sample)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(map(is_foldable, folded.modules()))
    for size in (1, 5):
        check_equal(network, folded, torch.randn(size, *SHAPE))
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("model", options("model"))
def test_as_many_norms_are_absorbed_as_torch_fuses(model):
    """torch's own fusion, by another way, leaves the norms that `fold` makes a map of each channel."""
    network = built(model, "batch").eval()
    fused, folded = fuse(network), fold(network, torch.zeros(2, *SHAPE))
    left = [name for name, module in fused.named_modules() if is_foldable(module)]
    linear = (nn.BatchNorm1d,)  # torch.fx's fusion leaves those behind linear layers, which `fold` does not
    left = [name for name in left if not isinstance(network.get_submodule(name), linear)]
    assert maps(folded) == left
    assert left or model != "resnet"  # its norms behind sums must be among them


@pytest.mark.parametrize("model", ["net", "mlp", "custom_model", "my_model", "mynet"])
def test_a_norm_behind_the_activation_goes_into_the_layer_after_it(model):
    network = built(model, "batch", "act_norm")
    folded = fold(network, torch.zeros(2, *SHAPE))
    assert not any(map(is_foldable, folded.modules()))
    assert maps(folded) == {"my_model": ["bn1"], "mynet": ["bn1"]}.get(model, [])  # a mean, a flattening lie between
    check_equal(network, folded, torch.randn(5, *SHAPE))


@pytest.mark.parametrize("norm", ["weight_std", "batch_channel", "mabn", "cross_iteration", "nf"])
def test_layers_of_an_option_become_torchs_own(norm):
    network = built("resnet", norm)
    folded = fold(network)
    assert {type(module) for module in folded.modules() if isinstance(module, nn.Conv2d)} == {nn.Conv2d}
    check_equal(network, folded, torch.randn(5, *SHAPE))


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "no bias": nn.Conv2d(4, 6, 3, bias=False),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1, stride=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4, bias=False, padding=1),
    "circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "same": nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, padding=1),
    "transposed, grouped": nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions_absorb_the_norm_behind_them_as_torchs_fusion_does(kind, affine):
    conv = CONVOLUTIONS[kind]
    network = trained(nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, affine=affine)), torch.randn(16, 4, 9, 9))
    x = torch.randn(3, 4, 9, 9)
    for sample in (None, x):
        folded = fold(network, sample)
        assert [type(module) for module in folded] == [type(conv), nn.Identity]
        check_equal(network, folded, x)
        if kind != "transposed, grouped":  # torch's gives wrong weights or none
            fused = fuse_conv_bn_eval(copy.deepcopy(network[0]).eval(), network[1].eval(), "transposed" in kind)
            torch.testing.assert_close(folded[0].weight, fused.weight.detach())
            torch.testing.assert_close(folded[0].bias, fused.bias.detach())


def test_linear_layers_absorb_the_norm_behind_them_as_torchs_fusion_does():
    network = trained(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)), torch.randn(16, 5))
    folded = fold(network, torch.randn(2, 5))
    fused = fuse_linear_bn_eval(network[0].eval(), network[1].eval())
    torch.testing.assert_close(folded.state_dict(), fused_state(fused))


def fused_state(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {f"0.{key}": value for key, value in layer.state_dict().items()}


@pytest.mark.parametrize(
    ("conv", "absorbed"),
    [
        (nn.Conv2d(6, 4, 3), True),
        (nn.Conv2d(6, 4, 3, groups=2, bias=False, stride=2, padding="valid"), True),
        (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), True),
        (nn.Conv2d(6, 4, 3, padding=1), False),
        (nn.Conv2d(6, 4, 3, padding="same"), False),
        (nn.ConvTranspose2d(6, 4, 3), False),
    ],
)
def test_a_convolution_absorbs_the_norm_before_it_unless_its_border_would_differ(conv, absorbed):
    network = trained(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(6), conv), torch.randn(16, 6, 9, 9))
    folded = fold(network)
    assert bool(maps(folded)) != absorbed
    check_equal(network, folded, torch.randn(3, 6, 9, 9))


class Astray(nn.Module):
    """A convolution and a norm that a reader of attributes takes for neighbours."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.way = way

    def forward(self, x):
        return self.way(self, x)


WAYS = {
    "registered beside each other, and run apart": lambda m, x: m.bn(m.other(m.conv(x))),
    "the convolution runs twice": lambda m, x: m.bn(m.conv(m.conv(x))),
    "its output has another reader": lambda m, x: m.bn(y := m.conv(x)) + y,
    "another reader before": lambda m, x: (y := m.conv(x)).relu() + m.bn(y),
    "its output is an output": lambda m, x: (y := m.conv(x), m.bn(y))[1] * 1 + 0 * y.sum(),
    "the norm runs twice": lambda m, x: m.bn(m.other(m.bn(m.conv(x)))),
    "an activation lies between": lambda m, x: m.bn(m.conv(x).tanh()),
    "the activation works in place": lambda m, x: F.relu(m.bn(F.relu(m.conv(x), inplace=True)), inplace=True),
    "the norm is before the first": lambda m, x: m.conv(m.bn(x)),
    "the network reads the weight itself": lambda m, x: m.bn(m.conv(x)) + m.conv.weight.mean(),
    "the network reads γ itself": lambda m, x: m.bn(m.conv(x)) * m.bn.weight.sum(),
}
FEW = {"registered beside each other, and run apart": 0, "the network reads γ itself": 0}


@pytest.mark.parametrize("probing", [False, True], ids=["traced", "probed"])
@pytest.mark.parametrize("way", WAYS)
def test_neighbours_are_seen_and_not_guessed(way, probing):
    network = trained(Astray(WAYS[way]), torch.randn(16, 4, 6, 6))
    x = torch.randn(3, 4, 6, 6)
    folded = fold(network, x if probing else None)
    check_equal(network, folded, x)
    assert len(maps(folded)) == FEW.get(way, 1)
    if way == "the network reads γ itself":
        assert is_foldable(folded.bn)


def test_reading_the_shape_between_changes_nothing():
    network = trained(Astray(lambda m, x: m.bn(m.conv(x).view(m.conv(x).shape))), torch.randn(16, 4, 6, 6))
    assert maps(fold(network)) == ["bn"]
    network = Astray(lambda m, x: m.bn(y := m.conv(x)).reshape(y.shape[0], y.size(1), -1))
    trained(network, torch.randn(16, 4, 6, 6))
    for sample in (None, torch.randn(2, 4, 6, 6)):
        assert not maps(fold(network, sample))


def test_a_shared_convolution_is_left_to_its_other_user():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), conv, nn.BatchNorm2d(4))
    trained(network, torch.randn(16, 4, 6, 6))
    for sample in (None, torch.randn(2, 4, 6, 6)):
        folded = fold(network, sample)
        assert folded[0] is folded[3]
        assert maps(folded) == ["1", "4"]
        check_equal(network, folded, torch.randn(3, 4, 6, 6))


def test_tied_weights_are_each_layers_own():
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    network[3].weight = network[0].weight
    trained(network, torch.randn(16, 4, 6, 6))
    check_equal(network, fold(network), torch.randn(3, 4, 6, 6))


def test_batch_statistics_and_hooks_stay():
    batch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert type(fold(batch)[1]) is nn.BatchNorm2d
    hooked = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    trained(hooked, torch.randn(16, 4, 6, 6))
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    folded = fold(hooked)
    assert maps(folded) == ["1"]
    check_equal(hooked, folded, torch.randn(3, 4, 6, 6))


class Rows(nn.Module):
    """A linear layer over the last of three axes, and a norm over the one in the middle, of the same length."""

    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(5, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.bn(self.fc(x))


def test_a_norm_over_another_axis_than_the_linear_layers_is_no_neighbour():
    network = trained(Rows(), torch.randn(16, 5, 5))
    with pytest.raises(ValueError, match=r"BatchNorm1d beside Linear.*give a batch.*fold\(network, sample\)"):
        fold(network)
    folded = fold(network, torch.randn(2, 5, 5))
    assert maps(folded) == ["bn"]
    check_equal(network, folded, torch.randn(3, 5, 5))


def test_a_network_that_fx_cannot_follow_needs_a_sample_and_no_values():
    network = trained(Astray(lambda m, x: m.bn(m.conv(x)) if x.ndim == 4 and len(x) else x), torch.randn(16, 4, 6, 6))
    with pytest.raises(ValueError, match=r"torch\.fx cannot follow this network .*give a batch"):
        fold(network)
    folded = fold(network, torch.randn(2, 4, 6, 6))
    assert not maps(folded)
    check_equal(network, folded, torch.randn(3, 4, 6, 6))
    by_value = Astray(lambda m, x: m.bn(m.conv(x)) if x.mean() > 0 else m.conv(x))
    with pytest.raises(ValueError, match=r"reads values of its batch \(__bool__\)"):
        fold(by_value, torch.ones(2, 4, 6, 6))


def test_layers_of_normlab_in_a_persons_network_fold():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    trained(replace_norms(network, Ghost(size=4)), torch.randn(16, 4, 9, 9))
    folded = fold(network)
    assert not maps(folded)
    check_equal(network, folded, torch.randn(3, 4, 9, 9))


def test_a_map_far_from_zero_is_exact():
    """Statistics of 16 bits and shifts far above the scale lose no digit in being measured."""
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).double().eval()
    network[1].running_mean.copy_(torch.tensor([1e6, -1e-3]))
    network[1].running_var.copy_(torch.tensor([1e-6, 1e8]))
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(fold(network)(x), network(x), rtol=1e-9, atol=1e-9)
