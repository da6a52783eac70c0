"""The state of every layer of normlab: how it begins, whose it takes, and what torch's folding may make of it."""

import copy

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from normlab.config.options import read_option
from normlab.norms.common.declaration import declaration
from normlab.norms.domain import set_domain

FEATURES = 8
NORMS = options("norm")

each_norm = pytest.mark.parametrize("name", NORMS)


def pair(name: str) -> nn.Sequential:
    """A convolution that the option makes, and its norm behind it."""
    torch.manual_seed(0)
    norm = instantiate(read_option("norm", name))
    return nn.Sequential(norm.conv2d(3, FEATURES, 3), norm(FEATURES, 2)).double()


def trained(name: str) -> nn.Sequential:
    """Layers as `pair` makes them, with parameters drawn at random and statistics of three batches."""
    network = pair(name)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    for _ in range(3):
        network(batch()).sum().backward()
    return network


def batch() -> torch.Tensor:
    return torch.randn(8, 3, 5, 6, dtype=torch.float64) * 2 + 1


@each_norm
def test_reset_parameters_gives_a_new_layer(name):
    layer, new = trained(name)[1], pair(name)[1]
    if layer.state_dict():
        layer.reset_parameters()
    torch.testing.assert_close(layer.state_dict(), new.state_dict(), rtol=0, atol=0)


@each_norm
def test_a_layer_made_without_memory_begins_as_any_other(name):
    """Networks too large for one device are made like this: on meta, then `to_empty` and `reset_parameters`."""
    new, layer = pair(name)[1], copy.deepcopy(pair(name)[1]).to("meta").to_empty(device="cpu")
    with torch.no_grad():
        for values in layer.state_dict().values():
            values.fill_(7)
    if layer.state_dict():
        layer.reset_parameters()
    torch.testing.assert_close(layer.state_dict(), new.state_dict(), rtol=0, atol=0)


@each_norm
def test_reset_running_stats_forgets_the_batches_and_keeps_what_was_learnt(name):
    layer, new = trained(name)[1], pair(name)[1]
    learnt = {key: value.clone() for key, value in layer.named_parameters()}
    if not hasattr(layer, "reset_running_stats"):
        return
    layer.reset_running_stats()
    torch.testing.assert_close(dict(layer.named_buffers()), dict(new.named_buffers()), rtol=0, atol=0)
    torch.testing.assert_close(dict(layer.named_parameters()), learnt, rtol=0, atol=0)


def test_reset_parameters_of_standardized_layers_resets_the_gain():
    conv = trained("nf")[0]
    conv.reset_parameters()
    assert torch.equal(conv.gain, torch.ones(FEATURES, dtype=torch.float64))


def of_batch_norm() -> dict[str, torch.Tensor]:
    """The state of a trained BatchNorm, with what torch writes beside it."""
    return trained("batch")[1].state_dict()


@each_norm
def test_states_without_a_counter_are_taken_as_torchs_batch_norm_takes_them(name):
    layer = pair(name)[1]
    keys = ("weight", "bias", "running_mean", "running_var")
    if set(layer.state_dict()) != {*keys, "num_batches_tracked"}:
        return
    state = of_batch_norm()
    layer.load_state_dict({key: state[key] for key in keys})  # a plain dict says nothing of its version
    for key in keys:
        assert torch.equal(layer.state_dict()[key], state[key])
    del state["num_batches_tracked"]  # torch has written that it is of a version with one
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(state)


def test_frozen_takes_a_batch_norms_state_as_torchvisions_does():
    state = of_batch_norm()
    ours, theirs = pair("frozen")[1], FrozenBatchNorm2d(FEATURES).double()
    for layer in (ours, theirs):
        layer.load_state_dict(state)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    nn.BatchNorm2d(FEATURES).load_state_dict(ours.state_dict())


@each_norm
def test_fuse_conv_bn_eval_is_right_or_refused(name):
    """It takes whatever has the attributes of a BatchNorm."""
    network, x = trained(name).eval(), batch()
    plain = nn.Conv2d(3, FEATURES, 3).double().eval()  # an option's own may standardize what was folded into it
    plain.load_state_dict({key: network[0].state_dict()[key] for key in ("weight", "bias")})
    expected = network[1](plain(x))
    found = declaration(network[1])
    if found is not None and found.foldable and isinstance(getattr(network[1], "running_var", None), torch.Tensor):
        torch.testing.assert_close(fuse_conv_bn_eval(plain, network[1])(x), expected, rtol=0, atol=1e-9)
    else:
        with pytest.raises((ValueError, AttributeError, AssertionError)):
            fuse_conv_bn_eval(plain, network[1])


def test_fuse_conv_bn_eval_is_refused_where_another_domain_is_set():
    conv, layer = trained("domain").eval()
    set_domain(layer, 1)
    assert "eps=1e-05" in repr(layer)
    with pytest.raises(ValueError, match="domain 1 is set"):
        fuse_conv_bn_eval(conv, layer)
