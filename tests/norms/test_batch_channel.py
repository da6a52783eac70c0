"""Batch-channel norm against torch's batch norm and group norm, one after the other."""

import pytest
import torch
from torch import nn

from normlab.norms.batch_channel import BatchChannel


def pair(momentum: float | None = 0.1) -> tuple[nn.Module, nn.Sequential]:
    torch.manual_seed(0)
    ours = BatchChannel(num_groups=3, momentum=momentum)(12, 2).double()
    theirs = nn.Sequential(nn.BatchNorm2d(12, momentum=momentum), nn.GroupNorm(3, 12)).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        theirs[0].weight.copy_(ours.batch_weight)
        theirs[0].bias.copy_(ours.batch_bias)
    theirs[1].load_state_dict({"weight": ours.weight, "bias": ours.bias})
    return ours, theirs


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_batch_norm_and_then_group_norm(momentum, layout):
    ours, theirs = pair(momentum)
    order = [ours.batch_weight, ours.batch_bias, ours.weight, ours.bias]
    for train in (True, True, True, False):
        ours.train(train)
        theirs.train(train)
        x = torch.randn(6, 12, 4, 5, dtype=torch.float64) * 3 + 1
        x = x.to(memory_format=layout).requires_grad_()
        y, expected = ours(x), theirs(x)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        upstream = torch.randn_like(y)
        got = torch.autograd.grad(y, [x, *order], upstream)
        wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], upstream)
        for ours_, theirs_ in zip(got, wanted, strict=True):
            torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-10)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs[0], name), rtol=0, atol=1e-10)


def test_weight_and_bias_are_the_outputs():
    """A zero weight makes a residual branch start at nothing, as in every other layer."""
    ours, _ = pair()
    nn.init.zeros_(ours.weight)
    nn.init.zeros_(ours.bias)
    assert not ours(torch.randn(4, 12, 3, 3, dtype=torch.float64)).any()


def test_an_in_place_activation_behind_it_spoils_nothing():
    ours, _ = pair()
    x = torch.randn(4, 12, 3, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.relu(ours(x)).sum(), x)
    (got,) = torch.autograd.grad(torch.relu_(ours(x)).sum(), x)
    assert torch.equal(got, expected)


def test_one_value_a_group_is_refused():
    with pytest.raises(ValueError, match="norm=batch_channel: Expected more than 1 value a group"):
        BatchChannel(num_groups=4)(4, 0)(torch.randn(8, 4))
