"""What layers that contain their activation share."""

import torch
from torch import Tensor, nn

from normlab.norms.own import OwnLayer


class ActivatingNorm(OwnLayer):
    """γ, β (C,) and the frame of a forward pass: 16-bit inputs are computed in float32 and given back as they came."""

    def __init__(self, name: str, num_features: int, dims: int, eps: float):
        super().__init__(name, num_features, dims, eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        self.check_not_empty(x)
        sixteen = x.dtype in (torch.float16, torch.bfloat16)
        with torch.autocast(x.device.type, enabled=False):
            spaced = x if self.dims else x.unsqueeze(2)  # a sum over no axes would be one over all
            y = self.compute(spaced.float() if sixteen else spaced)
        return y.view_as(x).to(x.dtype) if not self.dims else y.to(x.dtype)

    def compute(self, x: Tensor) -> Tensor:
        """The layer on float32 or float64 (N, C, *space) with at least one dimension of space."""
        raise NotImplementedError
