"""A layer keeps channels_last on a GPU, or declares that it does not."""

import pytest
import torch
from helpers.cases import options

from normlab.config.instantiate import make_node
from normlab.config.options import read_option
from normlab.norms.common.declaration import declaration

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("option", options("norm"))
def test_a_layer_keeps_channels_last_or_says_that_it_does_not(option, dtype):
    layer = make_node(read_option("norm", option), "norm")(16, 2).cuda()
    x = torch.randn(16, 16, 8, 8, device="cuda").to(memory_format=torch.channels_last).to(dtype).requires_grad_()
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype is torch.bfloat16):
        y = layer(x)
    y.float().square().sum().backward()
    declared = declaration(layer)
    keeps = declared is None or "cuda" not in declared.contiguous_on
    assert y.is_contiguous(memory_format=torch.channels_last) == keeps
    if keeps:
        assert x.grad is not None
        assert x.grad.is_contiguous(memory_format=torch.channels_last)
