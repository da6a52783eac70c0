"""What compile=true keeps for the backward pass of a network on the CPU."""

import pytest
import torch
from torch import Tensor

from normlab.models.mynet import MyNet
from normlab.models.resnet import ResNet
from normlab.norms.batch import Batch
from normlab.norms.ghost import Ghost
from normlab.runner.compiling import compile_network

pytestmark = pytest.mark.slow  # code is compiled


def saved(network, x: Tensor) -> list[Tensor]:
    """What the network's forward pass keeps for its backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        network(x)
    return kept


@pytest.mark.parametrize("norm", [Batch(), Ghost(size=2)], ids=lambda norm: norm.name)
def test_no_mask_is_kept_beside_an_activation(norm):
    network = MyNet(norm, (3, 8, 8), 10)
    compile_network(network, on_cpu=True)
    kept = saved(network, torch.randn(4, 3, 8, 8))
    assert kept
    assert torch.bool not in {tensor.dtype for tensor in kept}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_is_the_one_that_was_asked_for(layout):
    network = ResNet(Batch(), (3, 8, 8), 10).to(memory_format=layout)
    compile_network(network, on_cpu=True)
    x = torch.randn(4, 3, 8, 8).to(memory_format=layout)
    activations = [tensor for tensor in saved(network, x) if tensor.shape[-2:] == (8, 8)]
    assert activations
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in activations)
