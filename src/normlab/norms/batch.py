"""Batch normalization: torch's own layers."""

from dataclasses import dataclass

from torch import nn

from normlab.norms.common.base import Norm

LAYERS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Batch(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over batch and space of each channel of (N, C, *space).

    Training uses the batch's μ and biased σ², and moves the running statistics towards μ and the *unbiased* σ² by
    `momentum` (0.1 keeps 90 % of the old value; None takes the cumulative average). Evaluation uses the running
    statistics; without `track_running_stats` it uses the batch's. It is torch's `nn.BatchNorm*d` itself, so that
    every tool knows it. Does not help where a process sees few samples a batch, or batches unlike the test data.

    Ioffe & Szegedy, Batch Normalization, 2015, arXiv:1502.03167.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return LAYERS[dims](num_features, self.eps, self.momentum, self.affine, self.track_running_stats)
