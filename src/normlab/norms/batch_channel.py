"""Batch-channel normalization: group norm on top of batch norm, behind weight-standardized layers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.declaration import BATCH, GROUP_NORM, Declaration
from normlab.norms.common.layer import in_float32, widened
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.standardized import StandardizedNorm
from normlab.norms.common.tracing import leaf
from normlab.norms.group import number_of_groups


class BatchChannelLayer(RunningNorm):
    """See `BatchChannel`.

    State: weight, bias (C,) of the channel part, which are the layer's output affine as in every layer; batch_weight,
    batch_bias (C,) of the batch part; running_mean, running_var (C,) and the counter as `nn.BatchNorm*d`.
    """

    declaration = Declaration(BATCH, running_stats=True, synchronisable=True, drop_in=False, contiguous_on=GROUP_NORM)

    def __init__(self, num_features: int, dims: int, groups: int, eps: float, momentum: float | None):
        super().__init__("batch_channel", num_features, dims, eps, momentum)
        self.groups = groups
        self.batch_weight = nn.Parameter(torch.ones(num_features))
        self.batch_bias = nn.Parameter(torch.zeros(num_features))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.joint:
            self.check_not_empty(x)
        if math.prod(x.shape[1:]) // self.groups < 2:
            raise ValueError(f"norm=batch_channel: Expected more than 1 value a group, got a shape of {tuple(x.shape)}")
        return in_float32(self._normalize, x)

    def _normalize(self, x: Tensor) -> Tensor:
        batch_weight, batch_bias = widened(self.batch_weight, x), widened(self.batch_bias, x)
        if self.training:
            y = self.normalize(x, batch_weight, batch_bias)
        else:
            mean, var = widened(self.running_mean, x), widened(self.running_var, x)
            y = F.batch_norm(x, mean, var, batch_weight, batch_bias, False, 0.0, self._eps)
        return F.group_norm(y, self.groups, widened(self.weight, x), widened(self.bias, x), self._eps)


@dataclass(frozen=True)
class BatchChannel(StandardizedNorm):
    """y = γ (z - μ_g) / √(σ²_g + ε) + β of z = γ_b (x - μ) / √(σ² + ε) + β_b with batch norm's μ, σ² of each channel.

    μ_g, σ²_g are taken over the channels of a group and space of each sample, as group norm's; `num_groups=None` takes
    its rule. Layers in front have standardized weights, as under `norm=weight_std`. Input (N, C, *space), 0 to 3
    dimensions. Training moves batch norm's running statistics, evaluation uses them for z; the channel part is the same
    in both. (The paper's variant for micro-batches, which normalizes by running estimates in training, is not this.)
    Does not help where a process sees very few samples a batch, and costs two norms for each.
    Raises ValueError for a layer with one weight a filter, and for an input with one value a group.

    Qiao, Wang, Liu, Shen & Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    2019, arXiv:1903.10520v2.
    """

    num_groups: int | None = None
    eps: float = 1e-5
    momentum: float | None = 0.1

    @property
    def name(self) -> str:
        return "batch_channel"

    def layer(self, num_features: int, dims: int) -> nn.Module:
        groups = number_of_groups(self.num_groups, num_features)
        return BatchChannelLayer(num_features, dims, groups, self.eps, self.momentum)
