"""What own layers with batch statistics share: parameters and running statistics."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.norms.own import OwnLayer


class RunningNorm(OwnLayer):
    """γ, β and running statistics with torch's names, so that a BatchNorm's state dict loads and the other way round.

    It is no subclass of torch's `_BatchNorm`: code that looks for that would replace or fold layers it does not know.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, name: str, num_features: int, dims: int, eps: float, momentum: float | None):
        super().__init__(name, num_features, dims, eps)
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def evaluate(self, x: Tensor) -> Tensor:
        """Batch norm's evaluation: the running statistics' affine map of each channel."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    @torch.no_grad()
    def track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Counts a batch and moves the running statistics towards its own, (C,) each."""
        self.num_batches_tracked.add_(1)
        factor = tracking_factor(self.momentum, self.num_batches_tracked, mean)
        self.running_mean.lerp_(mean.to(self.running_mean), factor)
        self.running_var.lerp_(unbiased_var.to(self.running_var), factor)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}"


def tracking_factor(momentum: float | None, batches: Tensor, like: Tensor) -> float | Tensor:
    """The weight of the newest of `batches` batches in running statistics; without momentum they are their average."""
    # A tensor, not a number, in the cumulative case: a number would stop torch.compile
    return 1 / batches.to(like) if momentum is None else momentum


@torch.no_grad()
def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance (C,) of each channel of (N, C, *space), without cancellation."""
    n, c, space = x.shape[0], x.shape[1], x[0, 0].numel()
    if x.is_contiguous() and x.dtype in (torch.float32, torch.float64) and space > 1:
        # group norm's kernel with a group a channel is the fastest reader of rows; ε = 0 leaves σ^-1 itself
        _, row_mean, row_rstd = torch.native_group_norm(x, None, None, n, c, space, c, 0.0)
        var = row_rstd.pow(-2).mean(0) + row_mean.var(0, correction=0)
        return row_mean.mean(0), var * (n * space / (n * space - 1))
    mean, var = (x.new_zeros(c, dtype=torch.promote_types(x.dtype, torch.float32)) for _ in range(2))
    F.batch_norm(x, mean, var, None, None, True, 1.0, 1e-5)  # with momentum 1 it leaves the batch's own
    return mean, var
