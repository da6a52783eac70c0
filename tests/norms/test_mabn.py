"""MABN against its authors' algorithm (github.com/megvii-model/MABN) written plainly, over several batches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normlab.norms.mabn import MABN

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 2)}


class Plainly:
    """Lists of the batches' statistics, and one batch after the other."""

    def __init__(self, layer, window: int, r_max: float, start: int, average_from: int):
        self.layer, self.window, self.r_max, self.start = layer, window, r_max, start
        self.average_from = average_from
        self.running, self.batches = torch.ones(6, dtype=torch.float64), 0
        self.squares, self.products = [], []

    def step(self, x, upstream):
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        self.batches += 1
        self.squares.append((x**2).mean(axes))
        sigma = (self.average(self.squares) + 1e-5) ** 0.5
        limit = self.r_max if self.batches > self.start else 1
        r = (sigma / (self.running + 1e-5) ** 0.5).clamp(1 / limit, limit)
        self.running = 0.98 * self.running + 0.02 * (sigma**2 - 1e-5)
        z = x / sigma.view(shape)
        weight, bias = self.layer.weight.detach(), self.layer.bias.detach()
        y = z * (weight * r).view(shape) + bias.view(shape)
        g = upstream * (weight * r).view(shape)
        self.products.append((g * z).mean(axes))
        d_x = (g - z * self.average(self.products).view(shape)) / sigma.view(shape)
        return y, d_x, (upstream * z * r.view(shape)).sum(axes), upstream.sum(axes)

    def average(self, statistics: list[torch.Tensor]) -> torch.Tensor:
        if self.batches <= self.window or self.batches < self.average_from:
            return statistics[-1]
        return torch.stack(statistics[-self.window :]).mean(0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("average_from", [0, 6])
@pytest.mark.parametrize("dims", SPACES)
def test_outputs_and_gradients_over_batches_follow_the_authors(dims, average_from, channels_last):
    torch.manual_seed(0)
    keys = {"window": 3, "r_max": 1.05, "start": 4, "average_from": average_from}
    layer = MABN(**keys)(6, dims).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    plainly = Plainly(layer, **keys)
    for step in range(8):
        x = torch.randn(4, 6, *SPACES[dims], dtype=torch.float64) * (1 + step)
        if channels_last and dims == 2:
            x = x.to(memory_format=torch.channels_last)
        upstream = torch.randn_like(x)
        y = layer(x.requires_grad_())
        got = (y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream))
        with torch.no_grad():
            torch.testing.assert_close(got, plainly.step(x, upstream), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.running_square, plainly.running, rtol=0, atol=1e-10)
    x = torch.randn(2, 6, *SPACES[dims], dtype=torch.float64)
    columns = x.movedim(1, -1)
    expected = columns / (plainly.running + 1e-5) ** 0.5 * layer.weight + layer.bias
    torch.testing.assert_close(layer.eval()(x), expected.movedim(-1, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("forwards", [0, 1, 15])
def test_forward_passes_without_a_backward_pass_do_not_pull_its_averages(forwards):
    """The same batch and gradient each time: the average of the backward term is that of one."""
    torch.manual_seed(0)
    layer, x, upstream = MABN(window=4, average_from=0)(6, 2).double(), *torch.randn(2, 4, 6, 3, 3, dtype=torch.float64)
    expected = None
    for _ in range(12):
        for _ in range(forwards):
            layer(x)
        (got,) = torch.autograd.grad(layer(x.requires_grad_()), x, upstream)
        expected = got if expected is None else expected
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_the_layers_before_it_are_centred_and_keep_torchs_state():
    option = MABN()
    conv, linear = option.conv2d(3, 6, 3, padding=1), option.linear(5, 6)
    plain_conv, plain_linear = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(5, 6)
    plain_conv.load_state_dict(conv.state_dict())
    plain_linear.load_state_dict(linear.state_dict())
    x = torch.randn(2, 3, 8, 8)
    # a filter's mean times the sum under it is what centring takes off
    under = F.conv2d(x, torch.ones(1, 3, 3, 3), padding=1)
    taken = under * plain_conv.weight.mean((1, 2, 3)).view(1, -1, 1, 1)
    torch.testing.assert_close(conv(x), plain_conv(x) - taken, rtol=0, atol=1e-5)
    x = torch.randn(2, 5)
    taken = x.sum(1, keepdim=True) * plain_linear.weight.mean(1)
    torch.testing.assert_close(linear(x), plain_linear(x) - taken, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"r_max": 0.5}])
def test_wrong_keys_are_refused(wrong):
    with pytest.raises(ValueError, match="norm=mabn"):
        MABN(**wrong)
