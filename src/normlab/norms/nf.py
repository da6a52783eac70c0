"""Norm-free networks: scaled weight standardization and scaled activations in place of a norm."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normlab.norms.common.declaration import Declaration
from normlab.norms.common.standardized import StandardizedNorm


class NormFreeLayer(nn.Identity):
    """See `NormFree`. The identity, which declares that without its convolutions and activations it is no method."""

    declaration = Declaration(frozenset(), foldable=True, drop_in=False)


class ScaledActivation(nn.Module):
    """`activation` times its gain, so that a standard normal input keeps its variance of 1."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation, self.gain = activation, activation_gain(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x) * self.gain  # not in place: activations keep their output for backward

    def extra_repr(self) -> str:
        return f"gain={self.gain:.6f}"


@torch.no_grad()
def activation_gain(activation: nn.Module) -> float:
    """1 / √Var[f(z)] with z ~ N(0, 1), by the trapezoidal rule to 1e-6; the papers' constants are sampled.

    Raises ValueError for a module that is no function of each value, such as Softmax, or a constant one.
    """
    z = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    density /= density.sum()
    f = copy.deepcopy(activation).double().eval()
    try:
        y, few = f(z.clone()), f(z[::200].clone())  # clones: it may work in place
        var = float(density @ (y - density @ y).square()) if torch.allclose(y[::200], few) else 0.0
    except (RuntimeError, ValueError):  # it takes only inputs of certain shapes
        var = 0.0
    if not var > 1e-12:  # NaN is no larger either
        raise ValueError(f"norm=nf: {activation} is no function of each single value, so it has no gain; try ReLU")
    return var**-0.5


@dataclass(frozen=True)
class NormFree(StandardizedNorm):
    """y = x behind layers of ŵ = g (w - μ_w) / √(fan_in (σ²_w + ε_w)) with the moments of each filter.

    g (out,) is a learned gain of each filter, `gain` in the layers' state, which are `nn.Conv2d` and `nn.Linear`
    otherwise and keep their bias. There is no norm layer; each activation is scaled by 1 / std of f(z), z ~ N(0, 1),
    so that layers keep the variance of their input. Training and evaluation are the same. Go with `callbacks=agc`
    where batches or learning rates are large. The residual branches' scales α and β of NF-ResNets belong to a network,
    and `model=resnet` has none: does not help there as the depth grows, and regularises less than batch norm.
    Raises ValueError for a layer with one weight a filter, and for an activation without a gain.

    Brock, De & Smith, Characterizing signal propagation to close the performance gap in unnormalized ResNets, 2021,
    arXiv:2101.08692; Brock, De, Smith & Simonyan, High-Performance Large-Scale Image Recognition Without Normalization,
    2021, arXiv:2102.06171.
    """

    scaled = True

    @property
    def name(self) -> str:
        return "nf"

    @property
    def bias(self) -> bool:
        return True

    def act(self, module: nn.Module) -> nn.Module:
        return ScaledActivation(module)

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return NormFreeLayer()
