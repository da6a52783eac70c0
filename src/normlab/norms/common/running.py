"""The base of normlab's layers with batch statistics: their parameters and running statistics."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normlab.distributed import collectives
from normlab.norms.common import joint
from normlab.norms.common.checkpointing import moves_statistics
from normlab.norms.common.layer import NormLayer, has_16_bits, widened
from normlab.norms.common.moments import affine_map, moments, unbiased


class BatchMoments(nn.Module):
    """Batch statistics, of this process or jointly of all, and running statistics; for normlab's layers and torch's."""

    _eps: Any
    momentum: float | None
    running_mean: Any  # a Tensor; torch's layers may have None
    running_var: Any
    num_batches_tracked: Any

    synchronised: str | None = None  # takes statistics over all ranks; the layer's name for messages

    @property
    def joint(self) -> bool:
        """Whether a forward pass now would take its statistics over several ranks."""
        return self.training and self.synchronised is not None and collectives.several()

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The way of the gradient, as `moments` gives it; mean, biased and unbiased variance (1, C) of the batch.

        Where the statistics are those of several ranks, they are of all ranks' batches.
        """
        if self.joint:
            assert self.synchronised is not None
            return joint.joint_moments(x, self.synchronised)
        whole = [x.shape[0]]
        way, mean, var = moments(x, whole)
        return way, mean, var, unbiased(var, x, whole)

    def by_moments(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Batch norm's training pass on this batch, or on all ranks' jointly; moves the running statistics."""
        way, mean, var, unbiased_var = self.moments(x)
        self.track(mean[0], unbiased_var[0])
        return affine_map(x, way, [x.shape[0]], mean, weight * (var + self._eps).rsqrt(), bias)

    @torch.no_grad()
    def track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        """Counts a batch and moves the running statistics towards the batch's (C,); see `moves_statistics`."""
        if not moves_statistics():
            return
        self.num_batches_tracked.add_(1)
        factor = tracking_factor(self.momentum, self.num_batches_tracked, mean)
        self.running_mean.lerp_(mean.to(self.running_mean), factor)
        self.running_var.lerp_(unbiased_var.to(self.running_var), factor)


class RunningNorm(BatchMoments, NormLayer):
    """γ, β and running statistics under torch's names, so that a BatchNorm's state dict loads and is loaded.

    It is no subclass of torch's `_BatchNorm`, since code that looks for that class would replace or fold these layers.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    _version = 2  # torch's BatchNorm has a counter in its state since its version 2

    def __init__(self, name: str, num_features: int, dims: int, eps: float, momentum: float | None):
        super().__init__(name, num_features, dims, eps)
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *rest: Any) -> None:
        """Loads a state; one without a counter, such as older versions of torch save, leaves the layer's as it is."""
        version = local_metadata.get("version")
        if version is None or version < 2:
            state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def check_input(self, x: Tensor) -> None:
        """Checks what every `NormLayer` checks. Raises ValueError in training for an input without values.

        Where other ranks have statistics, this one may be without.
        """
        super().check_input(x)
        if self.training and not self.joint:
            self.check_not_empty(x)

    def evaluate(self, x: Tensor) -> Tensor:
        """Batch norm's evaluation: each channel's affine map by the running statistics."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self._eps)

    def normalize(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Batch norm's training pass, by torch's kernel where that is exact; moves the running statistics.

        γ and β are the layer's own unless given.
        """
        weight, bias = self.weight if weight is None else weight, self.bias if bias is None else bias
        # In channels_last, torch's kernel for 16 bits rounds the terms of a gradient before it adds them.
        inexact = has_16_bits(x) and x.device.type == "cpu" and not x.is_contiguous()
        if self.joint or inexact:
            return self.by_moments(x, weight, bias)
        mean = widened(torch.zeros_like(self.running_mean), x)
        var = torch.ones_like(mean)
        y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, self._eps)
        self.track(mean, var)  # with momentum 1 the kernel left the batch's own mean and unbiased variance
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}"


def tracking_factor(momentum: float | None, batches: Tensor, like: Tensor) -> float | Tensor:
    """The weight of the newest of `batches` batches in running statistics; without momentum, 1 / batches."""
    # Without momentum this is a tensor, since a number would stop torch.compile.
    return 1 / batches.to(like) if momentum is None else momentum


class SeveralNorms(RunningNorm):
    """Several sets of parameters and running statistics: the layer's own set is the first, `further` has the others."""

    def __init__(self, name: str, num_features: int, dims: int, sets: int, eps: float, momentum: float | None):
        super().__init__(name, num_features, dims, eps, momentum)
        self.further = nn.ModuleList(RunningNorm(name, num_features, dims, eps, momentum) for _ in range(sets - 1))

    @property
    def sets(self) -> list[RunningNorm]:
        return [self, *self.further]  # pyright: ignore[reportReturnType]

    def reset_parameters(self) -> None:
        """As in every `NormLayer`, but for each set."""
        super().reset_parameters()
        for each in self.sets[1:]:
            each.reset_parameters()

    def reset_running_stats(self) -> None:
        """As in every `NormLayer`, but for each set."""
        super().reset_running_stats()
        for each in self.sets[1:]:
            each.reset_running_stats()
