"""Norm-free parts: gains of activations against closed forms and timm's sampled constants, and what they keep."""

import math

import pytest
import torch
from timm.models.nfnet import _nonlin_gamma
from torch import nn

from normlab.norms.nf import NormFree, activation_gain


def test_gains_with_a_closed_form():
    assert activation_gain(nn.Identity()) == pytest.approx(1, abs=1e-9)
    assert activation_gain(nn.ReLU()) == pytest.approx((2 / (1 - 1 / math.pi)) ** 0.5, abs=1e-6)
    slope, z_std = 0.25, 1 / (2 * math.pi) ** 0.5
    second, mean = (1 + slope**2) / 2, (1 - slope) * z_std
    assert activation_gain(nn.PReLU(init=slope)) == pytest.approx((second - mean**2) ** -0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("celu", nn.CELU()),
        ("elu", nn.ELU()),
        ("gelu", nn.GELU()),
        ("leaky_relu", nn.LeakyReLU()),
        ("log_sigmoid", nn.LogSigmoid()),
        ("relu", nn.ReLU()),
        ("relu6", nn.ReLU6()),
        ("selu", nn.SELU()),
        ("sigmoid", nn.Sigmoid()),
        ("silu", nn.SiLU()),
        ("softsign", nn.Softsign()),
        ("softplus", nn.Softplus()),
        ("tanh", nn.Tanh()),
    ],
)
def test_gains_are_the_papers_to_the_error_of_their_sampling(name, activation):
    assert activation_gain(activation) == pytest.approx(_nonlin_gamma[name], rel=3e-3)


@pytest.mark.parametrize("activation", [nn.Softmax(dim=-1), nn.GLU(), nn.Softmax2d(), nn.Threshold(20, 1)])
def test_what_has_no_gain_is_refused_by_name(activation):
    with pytest.raises(ValueError, match=f"norm=nf: {type(activation).__name__}.* has no gain"):
        NormFree().act(activation)


def test_the_gain_leaves_the_activation_and_its_input_as_they_were():
    activation = nn.PReLU()
    x = torch.randn(8, requires_grad=True)
    scaled = NormFree().act(activation)
    torch.testing.assert_close(scaled(x), activation(x) * activation_gain(activation))
    assert scaled.activation is activation
    assert activation.weight.dtype == torch.float32
    in_place = NormFree().act(nn.ReLU(inplace=True))
    torch.autograd.grad(in_place(x * 1).sum(), x)


def test_a_deep_network_keeps_its_variance_and_without_gains_does_not():
    torch.manual_seed(0)
    norm = NormFree()
    layers = [norm.conv2d(64, 64, 3, padding=1, padding_mode="circular", bias=False) for _ in range(20)]
    x = plain = torch.randn(8, 64, 8, 8)
    scaled = norm.act(nn.ReLU())
    for layer in layers:
        x, plain = layer(scaled(x)), layer(torch.relu(plain))
    assert 0.5 < x.var() < 2
    assert plain.var() < 1e-4
