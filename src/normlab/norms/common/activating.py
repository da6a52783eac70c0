"""The base of layers that contain their activation."""

import torch
from torch import Tensor, nn

from normlab.norms.common.layer import NormLayer, in_float32
from normlab.norms.common.tracing import leaf


class ActivatingNorm(NormLayer):
    """γ and β (C,), and a forward pass for inputs with or without space, around `compute`."""

    def __init__(self, name: str, num_features: int, dims: int, eps: float):
        super().__init__(name, num_features, dims, eps)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        self.check_not_empty(x)
        if self.dims:
            return in_float32(self.compute, x)
        return in_float32(self.compute, x.unsqueeze(2)).squeeze(2)  # torch takes a sum over no axes as one over all

    def compute(self, x: Tensor) -> Tensor:
        """The layer's output for float32 or float64 (N, C, *space) with at least one dimension of space."""
        raise NotImplementedError
