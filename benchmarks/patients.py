"""Small networks that are well, and the ways in which benchmarks/doctor.py and the tests make them ill.

A degree is 0 to 4, from slight to grave.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits, load_wine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from normlab import diagnose
from normlab.doctor.finding import Diagnosis

Pair = tuple[Tensor, Tensor]
DATA = ("digits", "wine")
NETWORKS = ("dense", "deep", "residual")
DEGREES = 5
FEW = 400  # training samples of what would else train for long


@cache
def samples(data: str) -> tuple[Pair, Pair]:
    """Training and test samples (N, features), standardised by the training samples; 1 of 3 is a test sample."""
    x, y = (load_digits if data == "digits" else load_wine)(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test = order[: len(x) // 3]
    train = order[len(x) // 3 :]
    mean, std = x[train].mean(0), x[train].std(0).clamp(min=0.5)
    return ((x[train] - mean) / std, y[train]), ((x[test] - mean) / std, y[test])


class Residual(nn.Module):
    """x + a dense layer, norm and ReLU of it."""

    def __init__(self, width: int, bias: bool):
        super().__init__()
        self.fc, self.bn, self.relu = nn.Linear(width, width, bias=bias), nn.BatchNorm1d(width), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.relu(self.bn(self.fc(x)))


def network_of(kind: str, data: str, bias: bool = False) -> nn.Module:
    features, classes = (64, 10) if data == "digits" else (13, 3)
    start = [nn.Linear(features, 32, bias=bias), nn.BatchNorm1d(32), nn.ReLU()]
    if kind == "dense":
        return nn.Sequential(*start, nn.Linear(32, classes))
    if kind == "deep":
        more = [nn.Linear(32, 32, bias=bias), nn.BatchNorm1d(32), nn.ReLU()]
        return nn.Sequential(*start, *more, nn.Linear(32, classes))
    return nn.Sequential(*start, Residual(32, bias), Residual(32, bias), nn.Linear(32, classes))


@dataclass
class Patient:
    """A network with what a diagnosis of it takes."""

    network: nn.Module
    train: Pair
    test: Pair
    batch_size: int = 32
    keys: dict[str, Any] = field(default_factory=dict)

    def diagnosis(self) -> Diagnosis:
        train = DataLoader(TensorDataset(*self.train), self.batch_size, shuffle=True, drop_last=True)
        test = DataLoader(TensorDataset(*self.test), 64)
        torch.manual_seed(0)  # a loader draws its order
        return diagnose(self.network, train, test, **self.keys)

    @property
    def layers(self) -> list[nn.BatchNorm1d]:
        return [layer for layer in self.network.modules() if isinstance(layer, nn.BatchNorm1d)]


def trained(
    kind: str,
    data: str,
    seed: int = 0,
    batch_size: int = 32,
    epochs: int = 0,
    change: Callable[[nn.Module], object] = lambda network: None,
    decay: float = 0.0,
    part: int | None = None,
    bias: bool = False,
) -> Patient:
    """change: done to the network before it trains. part: how many training samples it gets; None: all."""
    (x, y), test = samples(data)
    x, y = x[:part], y[:part]
    torch.manual_seed(seed)
    network = network_of(kind, data, bias)
    change(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=decay)
    epochs = epochs or (4 if data == "digits" else 20)
    per_epoch = len(x) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * per_epoch)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for batch in order[: per_epoch * batch_size].view(per_epoch, batch_size):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    keys = {"steps": epochs * per_epoch, "optimizer": optimizer}
    return Patient(network, (x, y), test, batch_size, keys)


@cache
def _well(kind: str, data: str, seed: int) -> Patient:
    return trained(kind, data, seed)


def well(kind: str, data: str, seed: int = 0) -> Patient:
    """A trained network that nothing is wrong with."""
    one = _well(kind, data, seed)
    network = copy.deepcopy(one.network)
    return Patient(network, one.train, one.test, one.batch_size, {"steps": one.keys["steps"]})


def stale(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Weights that have shrunk since the statistics were taken, which are else without effect in front of a norm."""
    patient = well(kind, data, seed)
    layers = [module for module in patient.network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.weight *= (0.7, 0.5, 0.3, 0.2, 0.1)[degree]
    return patient


def momentum(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Keras' decay for torch's momentum."""
    value = (0.6, 0.75, 0.9, 0.99, 0.999)[degree]
    return trained(kind, data, seed, change=lambda network: _set_momentum(network, value))


def _set_momentum(network: nn.Module, value: float) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = value


def small_batch(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    return trained(kind, data, seed, (8, 6, 4, 3, 2)[degree], part=FEW)


def shift(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Test data with another contrast and brightness."""
    patient = well(kind, data, seed)
    scale, offset = ((0.8, 0.5), (0.6, 1), (0.4, 2), (0.3, 4), (0.2, 8))[degree]
    patient.test = patient.test[0] * scale + offset, patient.test[1]
    return patient


def overfitting(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Training labels that are wrong, learned by heart."""
    patient = trained(kind, data, seed, epochs=1)
    share = (0.1, 0.2, 0.3, 0.4, 0.5)[degree]
    x, y = (tensor[:FEW] for tensor in patient.train)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=generator) < share
    y = torch.where(wrong, torch.randint(0, int(y.max()) + 1, y.shape, generator=generator), y)
    torch.manual_seed(seed)
    network = network_of(kind, data)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        for batch in torch.randperm(len(x))[: len(x) // 32 * 32].view(-1, 32):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    return Patient(network, (x, y), patient.test)


def leaking(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Layers that lose their running statistics, in the slighter degrees those of a part of the channels."""
    patient = well(kind, data, seed)
    channels = (2, 4, 8, 16, 32)[degree]
    for name, layer in list(patient.network.named_modules()):
        if isinstance(layer, nn.BatchNorm1d):
            patient.network.set_submodule(name, _Partly(layer, channels) if channels < 32 else _untracked(layer))
    return patient


class _Partly(nn.Module):
    """Its first channels are normalised by the batch in eval mode too."""

    def __init__(self, layer: nn.BatchNorm1d, channels: int):
        super().__init__()
        self.layer, self.channels = layer, channels

    def forward(self, x: Tensor) -> Tensor:
        batch = F.batch_norm(x, None, None, self.layer.weight, self.layer.bias, True)
        return torch.cat([batch[:, : self.channels], self.layer(x)[:, self.channels :]], 1)


def _untracked(layer: nn.BatchNorm1d) -> nn.BatchNorm1d:
    bare = nn.BatchNorm1d(layer.num_features, track_running_stats=False)
    bare.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return bare


def two_forwards(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Steps that run the network several times: in the replay of a step, and, at the least, by the counters."""
    patient = well(kind, data, seed)
    if degree < 2:
        for layer in patient.layers[: 1 + degree]:
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked *= 2
        return patient
    if degree == 4:
        patient.network = _Recomputed(patient.network)
        return patient

    def step(network: nn.Module, batch: Any) -> None:
        network.train()
        for _ in range(degree):
            output = network(batch[0])
        F.cross_entropy(output, batch[1]).backward()  # pyright: ignore[reportPossiblyUnboundVariable]

    patient.keys["step"] = step
    return patient


class _Recomputed(nn.Module):
    """A network whose activations are computed again in the backward pass."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.network, x, use_reentrant=False)


def touched(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Test batches in training mode, under no_grad."""
    patient = well(kind, data, seed)
    patient.network.train()
    with torch.no_grad():
        for x in patient.test[0].split(32)[: (1, 1, 2, 3, 100)[degree]]:
            patient.network(x * (1, 2, 3, 4, 5)[degree])
    return patient


def frozen(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Layers whose parameters are frozen, though their statistics follow: the first, up to all."""
    patient = well(kind, data, seed)
    for layer in patient.layers[: degree + 1]:
        layer.requires_grad_(False)
    return patient


def nan_history(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """NaN in a single channel's mean, up to all of a layer's statistics."""
    patient = well(kind, data, seed)
    layer = patient.layers[-1 if degree < 3 else 0]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean[: (1, 4, 32, 32, 32)[degree]] = torch.nan
    if degree == 4:
        layer.running_var[:] = torch.inf
    return patient


def dead(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Channels that β has pushed below 0 for good."""
    patient = well(kind, data, seed)
    with torch.no_grad():
        patient.layers[0].bias[: (2, 8, 16, 25, 30)[degree]] = -100
    return patient


def bias(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Biases before norm layers. The degree is the seed's alone: there is a bias, or there is none."""
    return trained(kind, data, seed + degree, bias=True)


def decay(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    return trained(kind, data, seed, decay=(1e-5, 1e-4, 1e-3, 5e-3, 1e-2)[degree])


def ranks(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    """Another rank whose statistics went their own way."""
    patient = well(kind, data, seed)
    other = {name: value.clone() for name, value in patient.network.state_dict().items()}
    for name, value in other.items():
        if name.endswith("running_mean"):
            value += (0.01, 0.03, 0.1, 0.3, 1)[degree]
    patient.keys["ranks"] = [patient.network.state_dict(), other]
    return patient


def accumulation(kind: str, data: str, degree: int, seed: int = 0) -> Patient:
    patient = small_batch(kind, data, degree, seed)
    patient.keys["accumulate"] = 32 // patient.batch_size
    return patient


PITFALLS: dict[str, Callable[..., Patient]] = {
    "stale_statistics": stale,
    "momentum": momentum,
    "batch_too_small": small_batch,
    "accumulation": accumulation,
    "shift": shift,
    "overfitting": overfitting,
    "leaks_batch": leaking,
    "two_forwards": two_forwards,
    "touched_outside_training": touched,
    "frozen_moves": frozen,
    "nan_history": nan_history,
    "dead_channels": dead,
    "cancelled_bias": bias,
    "decay_on_gamma": decay,
    "unsynchronised_ranks": ranks,
}
