"""Frozen batch norm against torchvision's and against torch's in evaluation."""

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from normlab.norms.frozen import Frozen


def test_output_and_gradient_are_torchvisions_and_torchs():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).double()
    for values in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    theirs = FrozenBatchNorm2d(6).double()
    state = {key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    theirs.load_state_dict(state)
    ours = Frozen()(6, 2).double()
    ours.load_state_dict(state)
    x = torch.randn(4, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    results = [layer(x) for layer in (ours.train(), theirs, norm.eval())]
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in results]
    for y, gradient in zip(results[1:], gradients[1:], strict=True):
        torch.testing.assert_close(results[0], y, rtol=0, atol=1e-10)
        torch.testing.assert_close(gradients[0], gradient, rtol=0, atol=1e-10)


def test_nothing_is_trained_or_moved():
    layer = Frozen()(6, 0)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.train()(torch.randn(8, 6) + 3)
    assert not list(layer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
