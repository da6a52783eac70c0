"""Batch normalization with a faster forward pass on the CPU."""

from dataclasses import dataclass

from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.rows import has_fast_rows
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class BatchFastLayer(RunningNorm):
    """See `BatchFast`. State as `nn.BatchNorm*d`."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        if x.device.type == "cpu" and has_fast_rows(x):
            return self.by_moments(x, self.weight, self.bias)
        return self.normalize(x)


@dataclass(frozen=True)
class BatchFast(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over batch and space of each channel; input (N, C, *space).

    It is `norm=batch` up to rounding, with a forward pass that takes half of torch's time where that is slow, on
    contiguous float32 or float64 with space on the CPU (benchmarks/README.md); elsewhere it is torch's. Where means are
    large beside σ, dγ has fewer digits: in float32 it is off by up to 5e-7 |μ| / σ of its size, torch's by a tenth of
    that. The state is that of `nn.BatchNorm*d`. Does not help in channels_last or on a GPU. Stay with
    `norm=batch` where other tools must know the layer.

    Ioffe & Szegedy, Batch Normalization, 2015, arXiv:1502.03167.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1

    @property
    def name(self) -> str:
        return "batch_fast"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return BatchFastLayer(self.name, num_features, dims, self.eps, self.momentum)
