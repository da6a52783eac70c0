"""replace_norms: what is replaced, what is taken over, what is refused; on small networks of every kind of layer."""

import copy

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from timm.layers import BatchNormAct2d, GroupNorm1Act, GroupNormAct, LayerNormAct2d, RmsNormAct2d
from timm.layers import GroupNorm as TimmGroupNorm
from timm.layers import GroupNorm1 as TimmGroupNorm1
from timm.layers import LayerNorm2d as TimmLayerNorm2d
from timm.layers import RmsNorm2d as TimmRmsNorm2d
from timm.models.metaformer import GroupNorm1NoBias, LayerNorm2dNoBias
from torch import nn
from torchvision.models.convnext import LayerNorm2d

import normlab
from normlab.config.options import read_option
from normlab.norms.batch import Batch
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import Declaration, declaration
from normlab.norms.common.replace import DIMS, STATE, replace_norms
from normlab.norms.domain import set_domain
from normlab.norms.frozen import Frozen
from normlab.norms.ghost import Ghost, GhostNorm
from normlab.norms.group import Group
from normlab.norms.instance import Instance
from normlab.norms.none import NoNorm
from normlab.norms.rms import RMS

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 5)}
# A layer of each class that can be replaced, for 8 features, with the spatial dimensions to show it with.
LAYERS = [
    (nn.BatchNorm1d(8), 0),
    (nn.BatchNorm1d(8), 1),
    (nn.BatchNorm2d(8), 2),
    (nn.BatchNorm3d(8), 3),
    (nn.SyncBatchNorm(8), 2),
    (nn.InstanceNorm1d(8, affine=True), 1),
    (nn.InstanceNorm2d(8, affine=True), 2),
    (nn.InstanceNorm3d(8, affine=True), 3),
    *[(nn.GroupNorm(2, 8), dims) for dims in SPACES],
    (LayerNorm2d(8), 2),
    (TimmGroupNorm(8, 2), 2),
    (TimmGroupNorm1(8), 1),
    (TimmLayerNorm2d(8), 2),
    (TimmRmsNorm2d(8), 2),
    (BatchNormAct2d(8), 2),
    (GroupNormAct(8, 2), 2),
    (GroupNorm1Act(8), 2),
    (LayerNormAct2d(8), 2),
    (RmsNormAct2d(8), 2),
    (GroupNorm1NoBias(8), 2),
    (LayerNorm2dNoBias(8), 2),
]


def randomised(network: nn.Module) -> nn.Module:
    """Gives a network, as training does, other γ, β, running statistics and counters than a new layer's."""
    torch.manual_seed(0)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
        else:
            tensor.fill_(7)
    return network


def sample(dims: int) -> torch.Tensor:
    return torch.randn(4, 8, *SPACES[dims], dtype=torch.float64) * 3 + 1


def test_the_cases_are_all_classes_that_can_be_replaced():
    assert {f"{type(layer).__module__}.{type(layer).__qualname__}" for layer, _ in LAYERS} == set(DIMS)


@pytest.mark.parametrize(("layer", "dims"), LAYERS, ids=lambda value: type(value).__name__)
def test_every_class_is_replaced_and_its_state_taken_over(layer, dims):
    old = randomised(copy.deepcopy(layer).double()).train()
    network = replace_norms(nn.Sequential(old), Ghost(size=2), sample(dims))
    new = network[0].norm if hasattr(old, "act") else network[0]
    assert type(new) is GhostNorm
    assert (new.num_features, new.dims, new.training) == (8, dims, True)
    for key in STATE:
        value = getattr(old, key, None)
        if value is not None:
            assert getattr(new, key) is value
    assert new.running_mean.dtype == torch.float64
    assert network(sample(dims)).shape == sample(dims).shape


@pytest.mark.parametrize("dims", SPACES)
def test_batch_gives_torchs_own_output_and_statistics(dims):
    old = randomised(Batch()(8, dims)).double()
    new = replace_norms(copy.deepcopy(old), Batch(eps=1e-5, momentum=0.1), sample(dims))
    assert type(new) is type(old)
    assert new is not old
    for mode in (False, True):
        x = sample(dims)
        torch.testing.assert_close(new.train(mode)(x), old.train(mode)(x), rtol=0, atol=0)
    for key, value in old.state_dict().items():
        torch.testing.assert_close(new.state_dict()[key], value, rtol=0, atol=0)


def test_eps_and_momentum_are_the_options():
    new = replace_norms(nn.BatchNorm2d(8, eps=1e-3, momentum=0.01), Batch())
    assert (new.eps, new.momentum) == (1e-5, 0.1)


def test_a_shared_module_stays_shared():
    shared = randomised(nn.BatchNorm2d(8)).double()
    block = nn.Sequential(shared, nn.ReLU(), shared)
    network = nn.Sequential(block, block, nn.Sequential(shared))
    old = copy.deepcopy(network).eval()
    replace_norms(network, Frozen()).eval()
    assert network[0] is network[1]
    assert network[0][0] is network[0][2] is network[2][0]
    assert type(network[0][0]) is not nn.BatchNorm2d
    x = sample(2)
    torch.testing.assert_close(network(x), old(x), rtol=0, atol=1e-10)


def test_tied_parameters_stay_tied():
    first, second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    second.weight = first.weight
    network = replace_norms(nn.Sequential(first, second), Group())
    assert network[0].weight is network[1].weight
    assert network[0].bias is not network[1].bias


def test_frozen_is_the_network_in_eval_mode():
    network = randomised(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8))).double()
    x = sample(2)
    expected = copy.deepcopy(network).eval()(x)
    frozen = replace_norms(network, Frozen())
    torch.testing.assert_close(frozen.train()(x), expected, rtol=0, atol=1e-10)
    assert [name for name, _ in frozen.named_parameters()] == ["0.weight", "0.bias"]


BATCH_LIKE = [
    option
    for option in options("norm")
    if (found := declaration(instantiate(read_option("norm", option))(8, 2))) and found.running_stats and found.drop_in
    if option != "switchable"  # two thirds of its statistics are not the running ones
]


@pytest.mark.parametrize("option", BATCH_LIKE)
def test_evaluation_by_running_statistics_goes_on_as_before(option):
    network = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())).double().eval()
    x = torch.randn(4, 3, 7, 7, dtype=torch.float64)
    expected = network(x)
    replace_norms(network, instantiate(read_option("norm", option)), x)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-10)
    if option == "domain":
        set_domain(network, 1)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-10)


def test_eval_mode_and_frozen_parameters_stay():
    network = nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    network[0].eval().requires_grad_(False)
    network[1].bias.requires_grad_(False)
    replace_norms(network, Ghost())
    assert [layer.training for layer in network] == [False, True, True]
    assert [[p.requires_grad for p in layer.parameters()] for layer in network] == [
        [False, False],
        [True, False],
        [True, True],
    ]


def test_a_frozen_layers_new_parameters_are_frozen_too():
    network = nn.Sequential(nn.BatchNorm2d(8).requires_grad_(False), nn.InstanceNorm2d(8))
    replace_norms(network, Group())
    assert not any(p.requires_grad for p in network[0].parameters())
    assert all(p.requires_grad for p in network[1].parameters())  # the old one had none to tell


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_stays_also_where_the_layer_has_no_tensors(dtype):
    network = nn.Sequential(nn.Conv2d(8, 8, 1), nn.InstanceNorm2d(8), nn.BatchNorm2d(8)).to(dtype)
    replace_norms(network, Batch())
    assert {t.dtype for t in network.state_dict().values() if t.is_floating_point()} == {dtype}


def test_the_meta_device_stays():
    network = replace_norms(nn.BatchNorm2d(8, device="meta"), Ghost())
    assert all(tensor.is_meta for tensor in network.state_dict().values())


def test_state_that_the_option_has_no_place_for_is_left_out():
    old = randomised(nn.BatchNorm2d(8))
    new = replace_norms(copy.deepcopy(old), RMS())
    assert list(new.state_dict()) == ["weight"]
    assert torch.equal(new.weight, old.weight)
    assert isinstance(replace_norms(old, NoNorm()), nn.Identity)


def test_norm_with_activation_keeps_its_dropout_and_activation():
    old = BatchNormAct2d(8, act_layer="silu", drop_layer=lambda: nn.Dropout(0.5))
    old = randomised(old).double().eval()
    old.drop.train()
    network = replace_norms(nn.Sequential(copy.deepcopy(old)), Batch())
    assert list(dict(network[0].named_children())) == ["norm", "drop", "act"]
    assert [m.training for m in (network[0], network[0].norm, network[0].drop)] == [False, False, True]
    x = sample(2)
    for mode in (False, True):
        outputs = []
        for module in (old.train(mode), network.train(mode)):
            torch.manual_seed(0)
            outputs.append(module(x))
        torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_layers_that_are_kept_are_the_same_objects():
    network = nn.Sequential(nn.BatchNorm2d(8), nn.Sequential(nn.Conv2d(8, 8, 1)), nn.LayerNorm(6))
    kept = network[2]
    replace_norms(network, Group(), keep=["LayerNorm"])
    assert network[2] is kept
    assert type(network[0]) is nn.GroupNorm


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(x)


class MyBatchNorm(nn.BatchNorm2d):
    pass


class ResponseNormalizer(nn.Module):  # by the name alone
    pass


def test_keep_reaches_what_is_inside():
    network = nn.Sequential(Block(), nn.BatchNorm2d(8))
    replace_norms(network, Group(), keep=["Block"])
    assert type(network[0].bn) is nn.BatchNorm2d
    assert type(network[1]) is nn.GroupNorm


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(6), nn.RMSNorm(6), MyBatchNorm(8), nn.LocalResponseNorm(3), ResponseNormalizer(), Ghost()(8, 2)],
)
def test_what_is_not_known_is_named_and_nothing_changed(layer):
    network = nn.Sequential(nn.BatchNorm2d(8), nn.Sequential(layer), layer)
    kind = type(layer).__name__
    with pytest.raises(ValueError, match=rf"norm=group cannot replace {kind} \(1.0\).*model.keep=\[{kind}\]"):
        replace_norms(network, Group())
    assert type(network[0]) is nn.BatchNorm2d
    replace_norms(network, Group(), keep=[kind])  # the remedy


def test_several_classes_that_are_not_known_are_named_at_once():
    network = nn.Sequential(nn.LayerNorm(6), nn.LayerNorm(6), nn.LayerNorm(6), MyBatchNorm(8))
    with pytest.raises(ValueError, match=r"LayerNorm \(0 and 2 more\); MyBatchNorm \(3\)") as refusal:
        replace_norms(network, Batch())
    assert "model.keep=[LayerNorm,MyBatchNorm] leaves them as they are; there is no other norm" in str(refusal.value)
    replace_norms(network, NoNorm(), keep=["LayerNorm", "MyBatchNorm"])  # the remedy


def test_blocks_with_norm_in_their_name_are_no_norms():
    from torchvision.ops import Conv2dNormActivation

    network = replace_norms(Conv2dNormActivation(3, 8), Ghost())
    assert type(network[1]) is GhostNorm


@pytest.mark.parametrize("option", options("norm"))
def test_options_that_are_no_drop_in_are_refused_by_name(option):
    norm = instantiate(read_option("norm", option))
    found, network = declaration(norm(8, 2)), nn.Sequential(nn.BatchNorm2d(8))
    beside = any(getattr(type(norm), key) is not getattr(Norm, key) for key in ("conv2d", "linear", "act"))
    if beside or (found is not None and not found.drop_in):
        with pytest.raises(ValueError, match=f"norm={option} is no drop-in"):
            replace_norms(network, norm)
        assert type(network[0]) is nn.BatchNorm2d
    else:
        replace_norms(network, norm)
        assert declaration(network[0]) == found


def test_an_option_with_a_convolution_of_its_own_is_no_drop_in():
    class Convolving(Batch):
        def conv2d(self, *args, **kwargs):
            return nn.Conv2d(*args, **kwargs)

    class Declared(Batch):
        def layer(self, num_features, dims):
            layer = nn.Identity()
            layer.declaration = Declaration(frozenset(), drop_in=False)
            return layer

    for norm in (Convolving(), Declared()):
        with pytest.raises(ValueError, match="is no drop-in"):
            replace_norms(nn.BatchNorm2d(8), norm)


def test_other_refusals():
    with pytest.raises(ValueError, match="finds no normalization layer.*use norm=none"):
        replace_norms(nn.Conv2d(3, 3, 1), Batch())
    assert isinstance(replace_norms(nn.Conv2d(3, 3, 1), NoNorm()), nn.Conv2d)
    with pytest.raises(ValueError, match="no module of class BatchNorm2; did you mean BatchNorm2d"):
        replace_norms(nn.BatchNorm2d(8), Group(), keep=["BatchNorm2"])
    with pytest.raises(ValueError, match="1 is a BatchNorm1d, for several ranks: give a sample"):
        replace_norms(nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm1d(8)), Group())
    with pytest.raises(ValueError, match=r"0 \(BatchNorm1d\): norm=instance takes its statistics over space"):
        replace_norms(nn.Sequential(nn.BatchNorm1d(8)), Instance(), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"cannot take samples of shape \(9,\)"):
        replace_norms(nn.BatchNorm1d(8), Group(), torch.zeros(2, 9))


def test_a_layer_that_the_sample_does_not_reach_is_named():
    class Unused(Block):
        def __init__(self):
            super().__init__()
            self.unused = nn.BatchNorm1d(8)

    with pytest.raises(ValueError, match=r"unused \(BatchNorm1d\) did not see the sample"):
        replace_norms(Unused(), Group(), torch.zeros(2, 8, 3, 3))


def test_hooks_are_not_lost():
    network = nn.Sequential(nn.BatchNorm2d(8))
    hook = network[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="0 has hooks"):
        replace_norms(network, Group())
    hook.remove()
    replace_norms(network, Group())


def test_finding_ranks_leaves_no_trace():
    network = randomised(nn.Sequential(nn.Dropout(), nn.BatchNorm1d(8), nn.BatchNorm1d(8))).double()
    network[2].eval()
    before = copy.deepcopy(network.state_dict())
    x = sample(0)
    state = torch.get_rng_state()
    replace_norms(network, Batch(), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network] == [True, True, False]
    for key, value in before.items():
        assert torch.equal(network.state_dict()[key], value)


def test_it_is_public():
    assert normlab.replace_norms is replace_norms
