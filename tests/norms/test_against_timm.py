"""Layers against timm, torch and their formulas written plainly: output and every gradient.

timm takes statistics in float32 whatever the input, so EvoNorm and FRN equal it to float32's limit only; to 1e-10 they
equal the formula, differentiated by autograd.
"""

import pytest
import torch
from timm.layers import EvoNorm2dS0, FilterResponseNormTlu2d, LayerNorm2d
from torch import nn
from torch.nn import functional as F

from normlab.norms.evonorm_s0 import EvoNormS0
from normlab.norms.frn import FilterResponse
from normlab.norms.layer_channels import LayerChannels
from normlab.norms.rms import RMS


class TorchRMS(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return F.rms_norm(x.permute(0, 2, 3, 1), (len(self.weight),), self.weight, 1e-6).permute(0, 3, 1, 2)


class Plain(nn.Module):
    """A formula of (x, weight, bias, third), the parameters as (1, C, 1, 1)."""

    def __init__(self, features: int, third: str, formula):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.third, self.formula = third, formula
        self.register_parameter(third, nn.Parameter(torch.ones(features)))

    def forward(self, x):
        return self.formula(x, *(p.view(1, -1, 1, 1) for p in (self.weight, self.bias, getattr(self, self.third))))


def evonorm_s0(x, weight, bias, v):
    groups = x.reshape(len(x), 4, -1)
    variance = ((groups - groups.mean(2, keepdim=True)) ** 2).mean(2)
    std = (variance + 1e-5).sqrt().repeat_interleave(x.shape[1] // 4, 1)[:, :, None, None]
    return weight * x / (1 + torch.exp(-v * x)) / std + bias


def frn(x, weight, bias, tau):
    z = weight * x / ((x**2).mean((2, 3), keepdim=True) + 1e-5).sqrt() + bias
    return torch.where(z > tau, z, tau)


FLOAT32 = 1e-4
PAIRS = {
    "evonorm_s0": (EvoNormS0(num_groups=4), lambda c: Plain(c, "v", evonorm_s0), 1e-10),
    "evonorm_s0 of timm": (EvoNormS0(num_groups=4), lambda c: EvoNorm2dS0(c, groups=4, eps=1e-5), FLOAT32),
    "frn": (FilterResponse(eps=1e-5), lambda c: Plain(c, "tau", frn), 1e-10),
    "frn of timm": (FilterResponse(eps=1e-5), lambda c: FilterResponseNormTlu2d(c, eps=1e-5), FLOAT32),
    "layer_channels": (LayerChannels(), lambda c: LayerNorm2d(c, eps=1e-6), 1e-10),
    "rms": (RMS(), TorchRMS, 1e-10),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(4, 12, 5, 6), (1, 12, 3, 3), (16, 12, 1, 2)])
@pytest.mark.parametrize("name", PAIRS)
def test_output_and_gradients(name, shape, channels_last):
    torch.manual_seed(0)
    option, reference, limit = PAIRS[name]
    ours, theirs = option(12, 2).double(), reference(12).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.float64) * 2 + 1
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    y, expected = ours(x), theirs(x)
    torch.testing.assert_close(y, expected, rtol=limit, atol=limit)
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, [x, *ours.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], upstream)
    names = [n for n, _ in ours.named_parameters()]
    order = [names.index(n) for n, _ in theirs.named_parameters()]
    torch.testing.assert_close(got[0], wanted[0], rtol=limit, atol=limit)
    for place, gradient in zip(order, wanted[1:], strict=True):
        torch.testing.assert_close(got[1 + place], gradient, rtol=limit, atol=limit)


@pytest.mark.parametrize("space", [(5,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("option", [EvoNormS0(num_groups=2), FilterResponse()], ids=["evonorm_s0", "frn"])
def test_hand_derived_gradients_in_every_dimension(option, space):
    torch.manual_seed(0)
    layer = option(4, len(space)).double()
    parameters = list(layer.parameters())
    for parameter in parameters:
        nn.init.normal_(parameter)
    x = torch.randn(3, 4, *space, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x, *parameters), atol=1e-6)


@pytest.mark.parametrize("name", ["evonorm_s0", "frn"])
def test_an_in_place_activation_behind_it_spoils_nothing(name):
    layer = PAIRS[name][0](12, 2).double()
    x = torch.randn(4, 12, 5, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.relu(layer(x)).sum(), x)
    (got,) = torch.autograd.grad(torch.relu_(layer(x)).sum(), x)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
