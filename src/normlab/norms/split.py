"""Split batch normalization: auxiliary statistics for the pieces of a batch that are unlike the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.moments import affine_map, moments, unbiased
from normlab.norms.common.running import SeveralNorms
from normlab.norms.common.tracing import leaf


class SplitLayer(SeveralNorms):
    """See `Split`. The main state as `nn.BatchNorm*d`; `further` has the auxiliary pieces'."""

    def __init__(self, num_features: int, dims: int, splits: int, eps: float, momentum: float | None):
        super().__init__("split", num_features, dims, splits, eps, momentum)
        self.declaration = Declaration(BATCH, samples=2 * splits, running_stats=True, foldable=True)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        splits = len(self.sets)
        samples = x.shape[0]
        if samples < 2 * splits:
            raise ValueError(
                f"norm=split: norm.splits={splits} of two samples each is more than the {samples} samples of the batch"
            )
        sizes = [samples // splits] * splits
        sizes[-1] += samples % splits
        weight, bias = torch.stack([each.weight for each in self.sets]), torch.stack([each.bias for each in self.sets])
        way, mean, var = moments(x, sizes)
        for layer, its_mean, its_var in zip(self.sets, mean, unbiased(var, x, sizes), strict=True):
            layer.track(its_mean, its_var)
        return affine_map(x, way, sizes, mean, weight * (var + self._eps).rsqrt(), bias)


@dataclass(frozen=True)
class Split(Norm):
    """y = γ_k (x - μ_k) / √(σ²_k + ε) + β_k with μ_k, σ²_k over space and piece k of the batch; input (N, C, *space).

    A training batch is `splits` equal pieces one after the other, such as clean images and then their adversarial or
    strongly augmented versions; the last takes a remainder too. The first is the main piece, the others auxiliary: each
    has γ, β and running statistics of its own. Evaluation is batch norm's with those of the main piece, so that a
    BatchNorm takes them over. Helps where pieces of a batch are distributed differently; does not help where the batch
    is of one kind, as it then only halves what γ, β and the statistics are learnt from.
    Raises ValueError for a training batch that leaves a piece fewer than two samples.

    Xie et al., Adversarial Examples Improve Image Recognition, 2019, arXiv:1911.09665.
    """

    splits: int = 2
    eps: float = 1e-5
    momentum: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.splits < 2:
            raise ValueError(f"norm=split: splits={self.splits}; a batch has two pieces at least")

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return SplitLayer(num_features, dims, self.splits, self.eps, self.momentum)
