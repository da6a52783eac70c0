"""Weight-standardized convolutions and dense layers against timm's and against their formula."""

import pytest
import torch
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import nn
from torch.nn import functional as F

from normlab.norms.batch_channel import BatchChannel
from normlab.norms.nf import NormFree
from normlab.norms.weight_std import WeightStd

SHAPES = {
    "3×3": {"kernel_size": 3, "padding": 1},
    "1×1": {"kernel_size": 1, "padding": 0},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 0},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 3},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 6},
}


def gradients(layer: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, and the gradients of a random weighting of it, by name."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    torch.manual_seed(1)
    named = {"x": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad(y, list(named.values()), torch.randn_like(y))
    return {"y": y, **{name: g.reshape(-1) if name == "gain" else g for name, g in zip(named, found, strict=True)}}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("option", "kind"), [(WeightStd(), StdConv2d), (NormFree(), ScaledStdConv2d)])
def test_convolutions_are_timms(option, kind, shape, layout):
    torch.manual_seed(0)
    ours = option.conv2d(6, 12, **SHAPES[shape]).double().to(memory_format=layout)
    theirs = kind(6, 12, **SHAPES[shape], bias=True).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, 0.5)
    theirs.load_state_dict({k: v.view(-1, 1, 1, 1) if k == "gain" else v for k, v in ours.state_dict().items()})
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64).to(memory_format=layout)
    got, expected = gradients(ours, x), gradients(theirs, x)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("option", [WeightStd(weight_eps=1e-3), BatchChannel(weight_eps=1e-3)])
def test_dense_layers_follow_the_formula(option):
    torch.manual_seed(0)
    layer = option.linear(7, 5).double()
    x = torch.randn(4, 7, dtype=torch.float64)
    rows = [(w - w.mean()) / (((w - w.mean()) ** 2).sum() / 7 + 1e-3) ** 0.5 for w in layer.weight]
    expected = torch.stack([x @ row for row in rows], 1) + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_norm_free_dense_layers_have_unit_variance_for_standard_normal_inputs():
    torch.manual_seed(0)
    y = NormFree().linear(200, 100, bias=False)(torch.randn(5000, 200))
    assert y.var(0).mean().item() == pytest.approx(1, abs=0.02)


def test_padding_modes_are_torchs():
    torch.manual_seed(0)
    layer = WeightStd().conv2d(4, 4, 3, padding=1, padding_mode="reflect").double()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    w = layer.weight
    mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True, correction=0)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), (w - mean) / (var + 1e-6).sqrt(), layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


def test_a_large_mean_of_a_filter_does_not_cancel_its_variance():
    layer = WeightStd().conv2d(8, 8, 3)
    x = torch.randn(1, 8, 5, 5)
    expected = layer.double()(x.double())
    with torch.no_grad():
        layer.weight += 1e3
        got = layer.float()(x).double()
    torch.testing.assert_close(got, expected, rtol=0.01, atol=0.02)


def test_a_constant_filter_becomes_zero_with_finite_gradients():
    layer = NormFree().conv2d(3, 4, 3, bias=False)
    nn.init.constant_(layer.weight, 0.3)
    y = layer(torch.randn(2, 3, 5, 5))
    y.square().sum().backward()
    assert y.abs().max() < 1e-2
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("option", [WeightStd(), BatchChannel(), NormFree()])
def test_one_weight_a_filter_is_refused(option):
    for layer in (
        lambda: option.conv2d(1, 8, 1),
        lambda: option.conv2d(8, 8, 1, groups=8),
        lambda: option.linear(1, 8),
    ):
        with pytest.raises(ValueError, match=f"norm={option.name}: .* has one weight a filter.*or norm=group"):
            layer()
    option.conv2d(1, 8, 3)


def test_weight_eps_must_be_above_zero():
    with pytest.raises(ValueError, match="norm=nf: weight_eps=0 is not above 0"):
        NormFree(weight_eps=0)


def test_the_norm_of_weight_std_is_group_norm_and_goes_with_its_convolutions_only():
    torch.manual_seed(0)
    ours, theirs = WeightStd(num_groups=3)(12, 2).double(), nn.GroupNorm(3, 12).double()
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 12, 4, 4, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x))
    assert not any(option(12, 2).declaration.drop_in for option in (WeightStd(), BatchChannel(), NormFree()))
