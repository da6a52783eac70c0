"""Switchable norm against the norms it mixes, and against its formula written plainly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normlab.norms.switchable import Switchable

SPACES = {1: (7,), 2: (5, 6), 3: (3, 4, 2)}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def case(dims: int):
    torch.manual_seed(0)
    layer = Switchable()(6, dims).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 6, *SPACES[dims], dtype=torch.float64) * 2 + 1
    return layer, x.requires_grad_()


def plainly(layer, x, batch_mean=None, batch_var=None):
    space = tuple(range(2, x.ndim))
    shape = (1, -1, *[1] * len(space))
    means, variances = [], []
    for axes in (space, (1, *space), (0, *space)):
        means.append(x.mean(axes, keepdim=True))
        variances.append(((x - means[-1]) ** 2).mean(axes, keepdim=True))
    if batch_mean is not None:
        means[2], variances[2] = batch_mean.view(shape), batch_var.view(shape)
    w, v = (torch.exp(p) / torch.exp(p).sum() for p in (layer.mean_weight, layer.var_weight))
    mean = w[0] * means[0] + w[1] * means[1] + w[2] * means[2]
    variance = v[0] * variances[0] + v[1] * variances[1] + v[2] * variances[2]
    return layer.weight.view(shape) * (x - mean) / (variance + 1e-5) ** 0.5 + layer.bias.view(shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dims", SPACES)
def test_output_and_gradients_follow_the_formula(dims, training):
    layer, x = case(dims)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    layer.train(training)
    running = () if training else (layer.running_mean, layer.running_var)
    expected, got = plainly(layer, x, *running), layer(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    inputs, upstream = (x, *layer.parameters()), torch.randn_like(got)
    got, wanted = (torch.autograd.grad(y, inputs, upstream) for y in (got, expected))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize("kind", range(3))
def test_with_one_share_it_is_that_norm(kind, dims):
    layer, x = case(dims)
    for logits in (layer.mean_weight, layer.var_weight):
        nn.init.constant_(logits, -1e3)
        logits.data[kind] = 1e3
    batch_norm = BATCH_NORM[dims](6).double()
    batch_norm.weight, batch_norm.bias = layer.weight, layer.bias
    others = [
        lambda x: F.instance_norm(x, weight=layer.weight, bias=layer.bias),
        lambda x: F.group_norm(x, 1, layer.weight, layer.bias),
        batch_norm,
    ]
    torch.testing.assert_close(layer(x), others[kind](x), rtol=0, atol=1e-10)


def test_running_statistics_are_batch_norms():
    layer, x = case(2)
    reference = nn.BatchNorm2d(6).double()
    for shift in range(3):
        layer(x + shift)
        reference(x + shift)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(layer.state_dict()[key], reference.state_dict()[key], rtol=0, atol=1e-10)
