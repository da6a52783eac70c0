"""Moments of channels against numpy in float64, where cancellation and constant rows would show."""

import numpy as np
import pytest
import torch

from normlab.norms.running import channel_moments


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1e4, 1), (1e4, 0), (-3, 1e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channel_moments_are_numpys(layout, shift, scale, dtype):
    torch.manual_seed(0)
    x = (torch.randn(6, 5, 4, 3, dtype=torch.float64) * scale + shift).to(dtype).to(memory_format=layout)
    mean, var = channel_moments(x)
    values = x.double().numpy()
    close = 1e-10 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=close)
    np.testing.assert_allclose(var, values.var((0, 2, 3), ddof=1), rtol=10 * close, atol=close * scale**2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_channel_moments_of_tables_and_16_bit(dtype):
    x = torch.randn(50, 3).to(dtype)
    mean, var = channel_moments(x)
    assert mean.dtype == torch.float32
    np.testing.assert_allclose(var, x.double().numpy().var(0, ddof=1), rtol=1e-3)
