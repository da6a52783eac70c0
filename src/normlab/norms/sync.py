"""Synchronised batch normalization: statistics over the batches of all processes."""

from dataclasses import dataclass

from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class SyncLayer(RunningNorm):
    """See `Sync`. State as `nn.BatchNorm*d`."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True)
    synchronised = "a layer of norm=sync"  # `Synchronise` puts the layer's name here

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        return self.normalize(x) if self.training else self.evaluate(x)


@dataclass(frozen=True)
class Sync(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over the batches of all processes and space; input (N, C, *space).

    Each process weighs as many values as it has; one without any still has to take part. In a single process it is
    batch norm. Works on every device and backend, on the CPU too. The state is that of `nn.BatchNorm*d`, and evaluation
    is batch norm's, without communication. Does not help where each process sees batches large enough: it then only
    waits for the others, twice a layer and step.

    Peng et al., MegDet: A Large Mini-Batch Object Detector, 2018, arXiv:1711.07240.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return SyncLayer(self.name, num_features, dims, self.eps, self.momentum)
