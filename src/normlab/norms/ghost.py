"""Ghost batch normalization: batch norm within pieces of the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normlab.distributed import collectives
from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.moments import affine_map, moments, shares, unbiased
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class GhostNorm(RunningNorm):
    """See `Ghost`. State as `nn.BatchNorm*d`: weight, bias, running_mean, running_var (C,) and the counter."""

    def __init__(self, num_features: int, dims: int, size: int, eps: float, momentum: float | None):
        super().__init__("ghost", num_features, dims, eps, momentum)
        self.size = size
        self.declaration = Declaration(BATCH, samples=size, running_stats=True, foldable=True, synchronisable=True)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        if x.shape[0] < self.size and (x.shape[0] or not self.joint):
            raise ValueError(f"norm=ghost: norm.size={self.size} is more than the {x.shape[0]} samples of the batch")
        sizes = [self.size] * (x.shape[0] // self.size) or [0]
        sizes[-1] += x.shape[0] % self.size
        way, mean, var = moments(x, sizes)
        share = shares(x, sizes, mean)
        batch_mean, batch_var = (share * mean).sum(0), (share * unbiased(var, x, sizes)).sum(0)
        if self.joint:
            assert self.synchronised is not None
            batch_mean, batch_var = collectives.average(
                torch.stack([batch_mean, batch_var]), x.shape[0], self.synchronised
            )
        self.track(batch_mean, batch_var)
        return affine_map(x, way, sizes, mean, self.weight * (var + self._eps).rsqrt(), self.bias)


@dataclass(frozen=True)
class Ghost(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over space and the samples of one ghost batch; input (N, C, *space).

    Ghost batches hold `size` samples one after the other; the last takes the remainder too, so that none is smaller.
    Training moves the running statistics once a batch, towards the mean of the ghost batches' μ and unbiased σ²,
    weighted by their samples. Evaluation is batch norm's. Over several processes ghost batches stay within each;
    synchronised, the running statistics move towards the mean of all.
    The noise of small batches regularises large-batch training; does not help where batches are small already.
    Raises ValueError for a training batch with fewer than `size` samples.

    Hoffer, Hubara & Soudry, Train longer, generalize better, 2017, arXiv:1705.08741.
    """

    size: int = 8
    eps: float = 1e-5
    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"norm=ghost: size={self.size}; a ghost batch holds at least one sample")

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return GhostNorm(num_features, dims, self.size, self.eps, self.momentum)
