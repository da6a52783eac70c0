"""Batch renormalization against batch norm at its two limits, and against its formula written plainly."""

import pytest
import torch
from torch import nn

from normlab.norms.renorm import Renorm

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 2)}


def case(dims: int, **settings):
    torch.manual_seed(0)
    layer = Renorm(**settings)(6, dims).double()
    for values in (layer.weight, layer.bias, layer.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    x = (torch.randn(8, 6, *SPACES[dims], dtype=torch.float64) * 1.5 + 0.7).requires_grad_()
    return layer, x


def plainly(layer, x, r_max: float, d_max: float):
    """The paper's algorithm 1, with constants where it stops the gradient."""
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
    std, running_std = (var + layer.eps).sqrt(), (layer.running_var + layer.eps).sqrt().view(shape)
    r = (std / running_std).clamp(1 / r_max, r_max).detach()
    d = ((mean - layer.running_mean.view(shape)) / running_std).clamp(-d_max, d_max).detach()
    return layer.weight.view(shape) * ((x - mean) / std * r + d) + layer.bias.view(shape)


def same_output_and_gradients(layer, x, got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    inputs, upstream = (x, layer.weight, layer.bias), torch.randn_like(got)
    pairs = zip(
        torch.autograd.grad(got, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize(("r_max", "d_max"), [(1.2, 0.3), (3.0, 5.0), (1.0, 0.5)])
def test_output_and_gradients_follow_the_paper(dims, r_max, d_max):
    layer, x = case(dims, r_max=r_max, d_max=d_max, start=0, end=0)
    layer.num_batches_tracked.fill_(10)
    expected = plainly(layer, x, r_max, d_max)
    same_output_and_gradients(layer, x, layer(x), expected)


@pytest.mark.parametrize("dims", SPACES)
def test_before_the_ramp_it_is_batch_norm_in_everything(dims):
    layer, x = case(dims, start=1000, end=2000)
    norm = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims](6).double()
    norm.load_state_dict(layer.state_dict())
    norm.weight, norm.bias = layer.weight, layer.bias
    same_output_and_gradients(layer, x, layer(x), norm(x))
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.eval()(x), norm.eval()(x), rtol=0, atol=1e-10)


def test_without_bounds_the_output_is_evaluation_with_the_statistics_before_the_batch():
    layer, x = case(2, r_max=1e9, d_max=1e9, start=0, end=0)
    layer.num_batches_tracked.fill_(1)
    before = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("batches", "r_max", "d_max"), [(0, 1, 0), (10, 1, 0), (15, 2, 2.5), (20, 3, 5), (30, 3, 5)])
def test_the_bounds_rise_from_start_to_end(batches, r_max, d_max):
    layer, x = case(2, r_max=3.0, d_max=5.0, start=10, end=20)
    layer.num_batches_tracked.fill_(batches)
    far = (x.detach() * 1e3 + 1e4).requires_grad_()  # every bound is reached
    expected = plainly(layer, far, r_max, d_max)
    assert not torch.allclose(expected, plainly(layer, far, r_max + 0.1, d_max + 0.1))
    same_output_and_gradients(layer, far, layer(far), expected)


@pytest.mark.parametrize("wrong", [{"r_max": 0.5}, {"d_max": -1}, {"start": 5, "end": 4}])
def test_wrong_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="norm=renorm"):
        Renorm(**wrong)
