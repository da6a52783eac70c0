"""Ghost batch norm against torch's BatchNorm on each ghost batch."""

import itertools

import pytest
import torch
from torch import nn

from normlab.norms.ghost import Ghost

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 2)}
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def case(samples: int, dims: int = 2, **settings):
    torch.manual_seed(0)
    layer = Ghost(**settings)(6, dims).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = (torch.randn(samples, 6, *SPACES[dims], dtype=torch.float64) * 3 + 5).requires_grad_()
    return layer, x


def reference(layer, x: torch.Tensor, bounds: list[int]):
    """A BatchNorm a ghost batch: output, and the mean of their statistics weighted by samples."""
    outputs, mean, var = [], 0, 0
    for start, end in itertools.pairwise(bounds):
        norm = BATCH_NORM[layer.dims](6, eps=layer.eps, momentum=1.0).double()
        norm.weight, norm.bias = layer.weight, layer.bias
        outputs.append(norm(x[start:end]))
        mean = mean + (end - start) / len(x) * norm.running_mean
        var = var + (end - start) / len(x) * norm.running_var
    return torch.cat(outputs), mean, var


CASES = [  # samples, size, where ghost batches begin and end: the remainder is merged, never a chunk of its own
    (16, 4, [0, 4, 8, 12, 16]),
    (16, 16, [0, 16]),
    (9, 4, [0, 4, 9]),
    (11, 2, [0, 2, 4, 6, 8, 11]),
    (5, 5, [0, 5]),
    (7, 4, [0, 7]),
]


@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize(("samples", "size", "bounds"), CASES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_output_gradients_and_statistics(dims, samples, size, bounds, channels_last):
    layer, x = case(samples, dims, size=size)
    if channels_last and dims == 2:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    y, mean, var = reference(layer, x, bounds)
    upstream = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, layer.weight, layer.bias), upstream)
    got = layer(x)
    torch.testing.assert_close(got, y, rtol=0, atol=1e-10)
    for a, b in zip(torch.autograd.grad(got, (x, layer.weight, layer.bias), upstream), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * var, rtol=0, atol=1e-10)
    assert int(layer.num_batches_tracked) == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_ghost_batch_is_batch_norm(momentum):
    layer, x = case(12, size=12, momentum=momentum)
    norm = nn.BatchNorm2d(6, momentum=momentum).double()
    norm.load_state_dict(layer.state_dict())
    for step in range(3):
        torch.testing.assert_close(layer(x + step), norm(x + step), rtol=0, atol=1e-10)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.eval()(x), norm.eval()(x), rtol=0, atol=1e-10)


def test_wrong_inputs_are_refused():
    layer, x = case(8, size=4)
    for wrong in (x[:, :5], x[:, :, 0], x.long()):
        with pytest.raises(ValueError, match="norm=ghost: got"):
            layer(wrong)
