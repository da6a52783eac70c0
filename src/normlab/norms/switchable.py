"""Switchable normalization: a learnt mix of instance, layer and batch statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.moments import affine_map, moments
from normlab.norms.common.rows import pooled
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class SwitchableLayer(RunningNorm):
    """See `Switchable`. State as `nn.BatchNorm*d`, and the logits mean_weight and var_weight (3,)."""

    declaration = Declaration(BATCH, running_stats=True)

    def __init__(self, num_features: int, dims: int, eps: float, momentum: float | None):
        super().__init__("switchable", num_features, dims, eps, momentum)
        self.mean_weight = nn.Parameter(torch.zeros(3))
        self.var_weight = nn.Parameter(torch.zeros(3))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        self.check_not_empty(x)
        values = x.numel() // self.num_features
        if self.training and values < 2:
            raise ValueError(f"norm=switchable: Expected more than 1 value per channel, got shape {tuple(x.shape)}")
        way, mean, var = moments(x, None)  # instance statistics (N, C); layer and batch statistics follow from them
        layer_mean, layer_var = pooled(mean, var, 1)
        if self.training:
            batch_mean, batch_var = pooled(mean, var, 0)
            self.track(batch_mean[0], batch_var[0] * (values / (values - 1)))
        else:
            batch_mean, batch_var = self.running_mean.unsqueeze(0), self.running_var.unsqueeze(0)
        mixed_mean = _mix(self.mean_weight, mean, layer_mean, batch_mean)
        mixed_var = _mix(self.var_weight, var, layer_var, batch_var)
        return affine_map(x, way, None, mixed_mean, self.weight * (mixed_var + self._eps).rsqrt(), self.bias)


def _mix(logits: Tensor, first: Tensor, *others: Tensor) -> Tensor:
    """Σ w_k s_k, as s_1 + Σ w_k (s_k - s_1): else the logits' gradients are differences of large numbers."""
    base, shares = first.detach(), logits.softmax(0)
    return sum((share * (s - base) for share, s in zip(shares, (first, *others), strict=True)), base)


@dataclass(frozen=True)
class Switchable(Norm):
    """y = γ (x - Σ w_k μ_k) / √(Σ w'_k σ²_k + ε) + β with k = instance, layer, batch; input (N, C, *space).

    1 to 3 dimensions of space. w and w' are softmaxes of three learnt logits each, for means and for variances, equal
    at first. μ_k and biased σ²_k are taken over space, over space and channels, over space and batch. In evaluation the
    batch's statistics are batch norm's running ones, the others the sample's own. Helps where one does not know which
    norm to take, and small batches, which it learns to trust less; does not help where one knows, and costs more.

    Luo et al., Differentiable Learning-to-Normalize via Switchable Normalization, 2018, arXiv:1806.10779.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1

    def layer(self, num_features: int, dims: int) -> nn.Module:
        if dims == 0:
            raise ValueError("norm=switchable takes statistics over space, which a norm on a dense layer does not have")
        return SwitchableLayer(num_features, dims, self.eps, self.momentum)
