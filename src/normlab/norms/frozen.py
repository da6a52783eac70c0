"""Frozen batch normalization: a fixed affine map."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.common.base import Norm
from normlab.norms.common.declaration import Declaration
from normlab.norms.common.layer import NormLayer
from normlab.norms.common.rows import affine
from normlab.norms.common.tracing import leaf


class FrozenNorm(NormLayer):
    """See `Frozen`. `weight`, `bias`, `running_mean` and `running_var` (C,) are buffers; there are no parameters."""

    declaration = Declaration(frozenset(), running_stats=True, foldable=True)
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, dims: int, eps: float):
        super().__init__("frozen", num_features, dims, eps)
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A BatchNorm's state has a counter besides, which is not needed."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if x.dtype != self.weight.dtype:  # 16-bit inputs: torch's kernel computes in the buffers' float32
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self._eps)
        scale = self.weight * (self.running_var + self._eps).rsqrt()
        return affine(x, scale.unsqueeze(0), (self.bias - self.running_mean * scale).unsqueeze(0))


@dataclass(frozen=True)
class Frozen(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with γ, β, μ, σ² fixed, as buffers; input (N, C, *space).

    Training and evaluation are the same. It takes a trained BatchNorm's statistics over, for fine-tuning with small
    batches. Does not help a network trained from scratch: untrained statistics make it the identity.

    He et al., Deep Residual Learning (detection experiments), 2015, arXiv:1512.03385.
    """

    eps: float = 1e-5

    def layer(self, num_features: int, dims: int) -> nn.Module:
        return FrozenNorm(num_features, dims, self.eps)
