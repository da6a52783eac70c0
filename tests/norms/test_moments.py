"""Moments against numpy in float64, where cancellation and constant rows would show, and the affine map by autograd."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from normlab.norms.common.moments import affine_map, moments, piece_moments, piece_sums, unbiased

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1e4, 1), (1e4, 0), (-3, 1e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [None, [6], [2, 3, 1], [3, 3]])
@pytest.mark.parametrize("on_cpu", [True, False])  # the other way is that of compiled code and of GPUs
def test_moments_are_numpys(layout, shift, scale, dtype, sizes, on_cpu, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: not on_cpu)
    x = (torch.randn(6, 5, 4, 3, dtype=torch.float64) * scale + shift).to(dtype).to(memory_format=layout)
    mean, var = piece_moments(x, sizes)
    close = 1e-10 if dtype == torch.float64 else 1e-4
    for k, part in enumerate(x.double().split(sizes or 1)):
        values = part.numpy()
        np.testing.assert_allclose(mean[k], values.mean((0, 2, 3)), rtol=close)
        np.testing.assert_allclose(var[k], values.var((0, 2, 3)), rtol=10 * close, atol=close * scale**2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(50, 3), (50, 3, 2, 2)])
def test_moments_of_tables_and_16_bit_are_float32(shape, dtype):
    x = torch.randn(shape).to(dtype)
    mean, var = piece_moments(x, [50])
    assert mean.dtype == var.dtype == torch.float32
    values = x.double().numpy()
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(unbiased(var, x, [50])[0], values.var(axes, ddof=1), rtol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [None, [6], [2, 4], [3, 3]])
def test_gradients_are_those_of_finite_differences(sizes, layout):
    torch.manual_seed(0)
    x = torch.randn(6, 3, 2, 4, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    parts = 6 if sizes is None else len(sizes)
    shift = torch.randn(parts, 3, dtype=torch.float64, requires_grad=True)

    def go(x, shift):
        way, mean, var = moments(x, sizes)
        return affine_map(x, way, sizes, mean * 0.7, (var + 0.1).rsqrt(), shift + mean.square())

    assert torch.autograd.gradcheck(go, (x, shift))


def test_one_value_per_channel_is_refused():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        moments(torch.randn(2, 3), [1, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_sums_of_parts_are_those_that_torchs_kernel_gives_without_a_weight(dtype):
    """On CUDA the kernel needs a weight for them; on the CPU it does without, and they are the same bit for bit."""
    torch.manual_seed(0)
    x, g = (torch.randn(6, 5, 4, 3).to(dtype).to(memory_format=torch.channels_last) for _ in range(2))
    centre = torch.randn(2, 5).to(torch.promote_types(dtype, torch.float32))
    found = piece_sums(g, x, [2, 4], centre)
    one = torch.ones_like(centre[0])
    for k, (its_g, its_x) in enumerate(zip(g.split([2, 4]), x.split([2, 4]), strict=True)):
        _, of_products, of_g = torch.ops.aten.native_batch_norm_backward(
            its_g, its_x, None, None, None, centre[k], one, True, 0.0, [False, True, True]
        )
        assert torch.equal(found[0][k], of_g)
        assert torch.equal(found[1][k], of_products)


class Calls(TorchDispatchMode):
    """Counts torch's operations, each of which a GPU would be handed by itself."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_pieces_of_one_size_take_no_more_calls(dtype):
    counts = []
    for sizes in ([8, 8], [1] * 16):
        x, upstream = torch.randn(2, 16, 3, 4, 4, dtype=dtype)
        with Calls() as calls:
            way, mean, var = moments(x.requires_grad_(), sizes)
            affine_map(x, way, sizes, mean, var, mean).backward(upstream)
        counts.append(calls.number)
    assert counts[0] == counts[1]
