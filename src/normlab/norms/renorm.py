"""Batch renormalization: batch norm drawn towards the running statistics."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.checkpointing import check_first_pass
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.moments import affine_map
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import kept, leaf


class RenormLayer(RunningNorm):
    """See `Renorm`. State as `nn.BatchNorm*d`; the counter of batches drives the ramps too."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, synchronisable=True)

    def __init__(self, num_features: int, dims: int, option: "Renorm"):
        super().__init__("renorm", num_features, dims, option.eps, option.momentum)
        self.option = option

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        check_first_pass(self.name)
        way, mean, var, unbiased_var = self.moments(x)
        rstd = (var + self._eps).rsqrt()
        r, d = self._corrections(mean[0], rstd[0])
        self.track(mean[0], unbiased_var[0])
        return affine_map(x, way, [x.shape[0]], mean, self.weight * rstd * r, self.bias + self.weight * d)

    @torch.no_grad()
    def _corrections(self, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
        """r and d (C,) from the batch's statistics and the running ones before this batch moves them."""
        ramp = (self.num_batches_tracked - self.option.start) / max(self.option.end - self.option.start, 1)
        ramp = ramp.clamp(0, 1).to(mean)
        r_max, d_max = 1 + ramp * (self.option.r_max - 1), ramp * self.option.d_max
        running_std = (self.running_var + self._eps).sqrt()
        r = torch.minimum(torch.maximum(1 / (rstd * running_std), 1 / r_max), r_max)
        d = torch.minimum(torch.maximum((mean - self.running_mean) / running_std, -d_max), d_max)
        return kept(r), kept(d)


@dataclass(frozen=True)
class Renorm(Norm):
    """y = γ (r (x - μ) / √(σ² + ε) + d) + β with batch statistics μ, σ² as batch norm's; input (N, C, *space).

    With σ_B = √(σ² + ε) and the running μ_r, σ_r = √(σ²_r + ε) before this batch: r = clip(σ_B / σ_r, 1 / r_max, r_max)
    and d = clip((μ - μ_r) / σ_r, -d_max, d_max), both held constant in the gradient. The bounds rise from those of
    batch norm (r_max 1, d_max 0) at batch `start` linearly to `r_max`, `d_max` at batch `end`. Running statistics and
    evaluation are batch norm's (the paper averages σ, not σ²). Helps where batches are small or not alike; does not
    help where they are large, and harms while the running statistics are still wrong.

    Ioffe, Batch Renormalization, 2017, arXiv:1702.03275.
    """

    r_max: float = 3.0
    d_max: float = 5.0
    start: int = 100
    end: int = 500
    eps: float = 1e-5
    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.r_max < math.inf:
            raise ValueError(f"norm=renorm: r_max={self.r_max} is no finite number of at least 1")
        if not 0 <= self.d_max < math.inf:
            raise ValueError(f"norm=renorm: d_max={self.d_max} is no finite number of at least 0")
        if not 0 <= self.start <= self.end:
            raise ValueError(f"norm=renorm: start={self.start} and end={self.end} are no rising range of batches")

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return RenormLayer(num_features, dims, self)
