"""EvoNorm-B0 against timm, and to 1e-10 against its formula: timm takes statistics in float32."""

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn

from normlab.norms.evonorm_b0 import EvoNormB0

SPACES = {1: (7,), 2: (5, 6), 3: (3, 4, 2)}


def case(dims: int, samples: int = 4):
    torch.manual_seed(0)
    layer = EvoNormB0()(6, dims).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.randn(samples, 6, *SPACES[dims], dtype=torch.float64) * 2 + 1
    return layer, x.requires_grad_()


def plainly(layer, x):
    space = tuple(range(2, x.ndim))
    shape = (1, -1, *[1] * len(space))
    variance = lambda axes: ((x - x.mean(axes, keepdim=True)) ** 2).mean(axes, keepdim=True)
    batch = variance((0, *space)) if layer.training else layer.running_var.view(shape)
    left, right = (batch + 1e-3) ** 0.5, x * layer.v.view(shape) + (variance(space) + 1e-3) ** 0.5
    return layer.weight.view(shape) * x / torch.where(left > right, left, right) + layer.bias.view(shape)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dims", SPACES)
def test_output_and_gradients_follow_the_formula(dims, training, channels_last):
    layer, x = case(dims)
    layer.train(training)
    expected = plainly(layer, x)
    got = layer(x.to(memory_format=torch.channels_last) if channels_last and dims == 2 else x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    inputs, upstream = (x, *layer.parameters()), torch.randn_like(got)
    got, wanted = (torch.autograd.grad(y, inputs, upstream) for y in (got, expected))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_timms_layer_gives_the_same_and_keeps_the_same_variance():
    layer, x = case(2)
    theirs = EvoNorm2dB0(6).double()
    theirs.load_state_dict(layer.state_dict())
    for shift in range(3):
        torch.testing.assert_close(layer(x + shift), theirs(x + shift), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.running_var, theirs.running_var, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def test_the_running_variance_is_batch_norms():
    layer, x = case(2)
    reference = nn.BatchNorm2d(6).double()
    reference.running_var.copy_(layer.running_var)
    layer(x)
    reference(x)
    torch.testing.assert_close(layer.running_var, reference.running_var, rtol=0, atol=1e-10)


def test_an_in_place_activation_behind_it_spoils_nothing():
    layer, x = case(2)
    (expected,) = torch.autograd.grad(torch.relu(layer(x)).sum(), x)
    (got,) = torch.autograd.grad(torch.relu_(layer(x)).sum(), x)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
