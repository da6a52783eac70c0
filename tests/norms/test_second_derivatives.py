"""Gradients of gradients, as gradient penalties and Hessians take them, against finite differences of gradients."""

import pytest
import torch
from helpers.cases import options
from hydra.utils import instantiate
from torch import nn

from normlab.config.options import read_option

KEYS = {"ghost": {"size": 2}}  # batches of several pieces
REFUSED = {"mabn"}  # in training, where its gradient is no derivative


def layer_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    layer = instantiate(read_option("norm", name), **KEYS.get(name, {}))(4, 2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def batch(layout: torch.memory_format) -> torch.Tensor:
    return torch.randn(6, 4, 2, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize(
    "layout",
    [torch.contiguous_format, pytest.param(torch.channels_last, marks=pytest.mark.slow)],
    ids=["plain", "last"],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", options("norm"))
def test_second_derivatives_are_those_of_finite_differences(name, train, layout):
    if train and name in REFUSED:
        return
    layer, x = layer_of(name).train(train), batch(layout)

    def fresh(*_):
        """The layer with a copy of its state, which each of many calls would move on."""
        return torch.func.functional_call(layer, {key: b.clone() for key, b in layer.named_buffers()}, (x,))

    assert torch.autograd.gradgradcheck(fresh, (x, *layer.parameters()), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_gradient_that_is_no_derivative_is_not_differentiated(name):
    layer, x = layer_of(name), batch(torch.contiguous_format)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        (x.sum() + gradient.square().sum()).backward()
