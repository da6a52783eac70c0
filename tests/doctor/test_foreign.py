"""Networks of others go through without a false word."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normlab import diagnose, estimate_statistics, parameter_groups

TORCHVISION = ["resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]
TIMM = ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"]


def data(seed: int) -> TensorDataset:
    """Images of four tints."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(96) % 4
    tint = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    return TensorDataset(0.7 * torch.randn(96, 3, 32, 32, generator=generator) + tint[y], y)


def trained_briefly(network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Trains for a few steps, and gives the network the statistics of its weights; returns the steps."""
    steps = 0
    for x, y in DataLoader(data(0), 16):
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        estimate_statistics(network, DataLoader(data(0), 96))
    return steps


def assert_nothing_is_said(network: nn.Module) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.01), 1e-3)
    steps = trained_briefly(network, optimizer)
    state = copy.deepcopy(network.state_dict())
    modes = {name: module.training for name, module in network.named_modules()}
    random = torch.get_rng_state()
    loaders = DataLoader(data(0), 16, shuffle=True), DataLoader(data(1), 32)
    made = diagnose(network, *loaders, optimizer=optimizer, steps=steps)
    assert [str(finding) for finding in made.findings] == []
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_of_torchvision(name):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    assert_nothing_is_said(getattr(torchvision.models, name)(num_classes=4))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_of_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    assert_nothing_is_said(timm.create_model(name, num_classes=4))


def test_a_small_network_stays_as_it_is():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)]
    assert_nothing_is_said(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)))
