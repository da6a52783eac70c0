"""Whitening against the paper's recurrence, numpy's eigendecomposition and batch norm; and where it would break."""

import numpy as np
import pytest
import torch
from torch import nn

from normlab.norms.whitening import EighInverseRoot, Whitening, newton_inverse_root
from normlab.runner.batch_sizes import check_batches


def prepared(option: Whitening, features: int, dims: int) -> nn.Module:
    torch.manual_seed(0)
    layer = option(features, dims).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def by_the_paper(x: torch.Tensor, layer: nn.Module, size: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and whitening matrices, group by group and value by value of the paper's algorithm 1."""
    flat = x.movedim(1, 0).flatten(1)  # (C, m)
    outputs, matrices = [], []
    for group in flat.split(size):
        centred = group - group.mean(1, keepdim=True)
        sigma = centred @ centred.T / flat.shape[1] + layer._eps * torch.eye(size, dtype=x.dtype)
        p = torch.eye(size, dtype=x.dtype)
        for _ in range(steps):
            p = (3 * p - torch.linalg.matrix_power(p, 3) @ (sigma / torch.trace(sigma))) / 2
        matrices.append(p / torch.trace(sigma).sqrt())
        outputs.append(matrices[-1] @ centred)
    y = torch.cat(outputs) * layer.weight[:, None] + layer.bias[:, None]
    return y.view(x.shape[1], len(x), *x.shape[2:]).movedim(0, 1), torch.stack(matrices)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("size", "steps"), [(6, 5), (3, 3), (1, 5)])
def test_newton_is_the_papers_recurrence(size, steps, layout):
    layer = prepared(Whitening(group_size=size, iterations=steps), 6, 2)
    mean = torch.zeros(6, dtype=torch.float64)
    whitening = torch.eye(size, dtype=torch.float64).repeat(6 // size, 1, 1)
    for _ in range(3):
        x = torch.randn(5, 6, 4, 3, dtype=torch.float64)
        x = (x + x.roll(1, 1) + 2).to(memory_format=layout).requires_grad_()
        y = layer(x)
        expected, matrices = by_the_paper(x, layer, size, steps)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        upstream = torch.randn_like(y)
        inputs = [x, layer.weight, layer.bias]
        for got, wanted in zip(
            torch.autograd.grad(y, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
        mean = 0.9 * mean + 0.1 * x.detach().mean((0, 2, 3))
        whitening = 0.9 * whitening + 0.1 * matrices.detach()
    torch.testing.assert_close(layer.running_mean, mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.running_whitening, whitening, rtol=0, atol=1e-10)
    assert layer.num_batches_tracked == 3

    x = torch.randn(1, 6, 4, 3, dtype=torch.float64)
    centred = x - mean[:, None, None]
    white = torch.block_diag(*whitening) @ centred.flatten(2)
    expected = white.view_as(x) * layer.weight[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(layer.eval()(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["newton", "eigh"])
@pytest.mark.parametrize("space", [(), (7,), (3, 4), (2, 3, 2)])
def test_groups_of_one_channel_are_batch_norm(method, space):
    ours = prepared(Whitening(group_size=1, method=method), 4, len(space))
    theirs = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(space)](4).double()
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias}, strict=False)
    x = (torch.randn(9, 4, *space, dtype=torch.float64) * 3 + 1).requires_grad_()
    y, expected = ours(x), theirs(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, [x, *ours.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], upstream)
    for ours_, theirs_ in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=0, atol=1e-10)
    assert ours.declaration.foldable


def test_eigh_is_numpys_inverse_root_and_whitens():
    layer = Whitening(group_size=6, method="eigh", eps=1e-5)(6, 2).double()
    torch.manual_seed(0)
    x = torch.randn(8, 6, 4, 4, dtype=torch.float64)
    x = x + 0.5 * x.roll(1, 1)
    y = layer(x).detach().transpose(0, 1).flatten(1).numpy()
    flat = x.transpose(0, 1).flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat, bias=True) + 1e-5 * np.eye(6))
    expected = vectors @ np.diag(values**-0.5) @ vectors.T @ (flat - flat.mean(1, keepdims=True))
    np.testing.assert_allclose(y, expected, atol=1e-10)
    np.testing.assert_allclose(np.cov(y, bias=True), np.eye(6), atol=1e-3)


def test_newton_converges_to_eigh_with_its_gradients():
    torch.manual_seed(0)
    root = torch.randn(2, 5, 40, dtype=torch.float64)
    cov = (root @ root.mT / 40).requires_grad_()
    newton, exact = newton_inverse_root(cov, 15), EighInverseRoot.apply(cov, 1e-12)
    torch.testing.assert_close(newton, exact, rtol=0, atol=1e-10)
    upstream = torch.randn_like(exact)
    (got,), (expected,) = (torch.autograd.grad(w, cov, upstream) for w in (newton, exact))
    symmetric = [(g + g.mT) / 2 for g in (got, expected)]  # Σ is symmetric: only this part reaches the input
    torch.testing.assert_close(*symmetric, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0], [1.0, 1.0, 3.0], [1.0, 1.0 + 1e-12, 5.0]])
def test_gradients_of_eigh_hold_where_eigenvalues_are_equal(values):
    torch.manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    cov = (rotation @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ rotation.T).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: EighInverseRoot.apply((c + c.mT) / 2, 1e-6), cov, atol=1e-6)


@pytest.mark.parametrize("space", [(), (5,), (3, 4), (2, 2, 3)])
def test_gradients_of_the_eigh_layer(space):
    layer = prepared(Whitening(group_size=3, method="eigh"), 6, len(space))
    x = torch.randn(12, 6, *space, dtype=torch.float64, requires_grad=True)
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x, *parameters), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(
    ("method", "limit"), [({"iterations": 5}, 1e-3), ({"iterations": 15}, 2e-2), ({"method": "eigh"}, None)]
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("rank", [1, 4])
def test_ill_conditioned_inputs_stay_finite_in_float32(method, limit, scale, rank):
    """All but `rank` directions of 16 channels have no variance: steps that amplify rounding would end in NaN."""
    torch.manual_seed(0)
    x = (torch.randn(300, rank) @ torch.randn(rank, 16) * scale).requires_grad_()
    layer = Whitening(group_size=16, **method)(16, 0)
    y = layer(x)
    (gradient,) = torch.autograd.grad(y.square().mean() + y[:, 0].mean(), x)
    assert y.isfinite().all()
    assert gradient.isfinite().all()
    assert layer.running_whitening.isfinite().all()
    if limit is not None:
        exact = Whitening(group_size=16, **method)(16, 0).double()(x.double())
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=limit)


@pytest.mark.parametrize("method", ["newton", "eigh"])
def test_constant_channels_give_the_shift_with_finite_gradients(method):
    layer = Whitening(method=method)(8, 0)
    x = torch.full((32, 8), 3.0, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_without_momentum_the_running_statistics_are_averages():
    layer = Whitening(group_size=4, momentum=None)(4, 0).double()
    batches = [torch.randn(9, 4, dtype=torch.float64) + i for i in range(3)]
    matrices = [by_the_paper(x, layer, 4, 5)[1].detach() for x in batches if layer(x) is not None]
    torch.testing.assert_close(layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0))
    torch.testing.assert_close(layer.running_whitening, torch.stack(matrices).mean(0))


def test_an_in_place_activation_behind_it_spoils_nothing():
    layer = prepared(Whitening(), 8, 2)
    x = torch.randn(4, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.relu(layer(x)).sum(), x)
    (got,) = torch.autograd.grad(torch.relu_(layer(x)).sum(), x)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(("features", "size"), [(64, 8), (20, 5), (10, 5), (3, 3), (13, 1), (1, 1)])
def test_groups_are_of_the_largest_size_that_divides(features, size):
    layer = Whitening()(features, 2)
    assert layer.size == layer.declaration.dimension == size
    assert layer.running_whitening.shape == (features // size, size, size)


def test_few_values_for_the_channels_are_refused_before_and_in_training():
    network = nn.Sequential(nn.Linear(3, 8), Whitening()(8, 0))
    inputs = {"1": torch.zeros(2, 8)}
    check_batches(network, inputs, [32, 9])
    lacks = "that leaves 1 8 values per channel, and it needs more than 8"
    with pytest.raises(ValueError, match=f"last training batch holds 8 samples, and {lacks}: set data.drop_last"):
        check_batches(network, inputs, [32, 8])
    with pytest.raises(
        ValueError, match=r"Expected more than 8 values.*raise data.batch_size or lower norm.group_size"
    ):
        network(torch.randn(8, 3))
    network.eval()(torch.randn(1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 16}, "iterations=16 is not between 1 and 15; .*method=eigh"),
        ({"iterations": 0}, "iterations=0 is not between"),
        ({"method": "svd"}, "method=svd; expected one of newton, eigh"),
        ({"group_size": 0}, "group_size=0 is below 1"),
        ({"eps": 0.0}, "eps=0"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=f"norm=whitening: {message}"):
        Whitening(**arguments)
