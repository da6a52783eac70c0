"""Cross-iteration batch normalization: statistics of the last batches, carried over to the weights of now."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normlab.norms.common.base import Norm, Order
from normlab.norms.common.checkpointing import check_first_pass, recomputing
from normlab.norms.common.declaration import BATCH, Declaration
from normlab.norms.common.layer import per_channel
from normlab.norms.common.moments import affine_map, moments, unbiased
from normlab.norms.common.running import RunningNorm
from normlab.norms.common.tracing import leaf


class Linked(nn.Module):
    """Notes its input for the norm after it, which asks for derivatives by the weight.

    The input is noted on the output, as the layer may run several times before the norm does, and on the layer for a
    norm that stands behind a sum of the output and a shortcut.
    """

    weight: Tensor
    seen: Tensor | None = None
    made: torch.Size | None = None  # the shape of its last output

    def effective_weight(self) -> Tensor:
        return self.weight

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)  # pyright: ignore[reportAttributeAccessIssue]
        if self.training:
            self.seen, self.made = input.detach(), output.shape
            output.made_by, output.made_of = self, self.seen
        return output

    def input_of(self, x: Tensor) -> Tensor | None:
        """The input that this layer made `x` of; None where it did not make it, as far as that can be told."""
        maker = getattr(x, "made_by", None)
        seen, self.seen = self.seen, None  # let go, or it would live until the next batch
        if maker is None:
            return seen if x.shape == self.made else None  # a pool may stand between
        return x.made_of if maker is self else None  # pyright: ignore[reportAttributeAccessIssue]


class LinkedConv2d(Linked, nn.Conv2d):
    """`nn.Conv2d`; the same state."""

    def weight_gradient(self, seen: Tensor, of_output: Tensor) -> Tensor:
        """The gradient of the weight where that of the output is `of_output`, for the input `seen`."""
        shape, padding = self.weight.shape, self.padding
        return torch.nn.grad.conv2d_weight(seen, shape, of_output, self.stride, padding, self.dilation, self.groups)  # pyright: ignore


class LinkedLinear(Linked, nn.Linear):
    """`nn.Linear`; the same state."""

    def weight_gradient(self, seen: Tensor, of_output: Tensor) -> Tensor:
        """The gradient of the weight where that of the output is `of_output`, for the input `seen`."""
        return of_output.T @ seen


class CrossIterationLayer(RunningNorm):
    """See `CrossIteration`. State as `nn.BatchNorm*d`, and with a `source` that of past batches."""

    declaration = Declaration(BATCH, running_stats=True, foldable=True, drop_in=False)
    past_mean: Tensor  # (window - 1, C)
    past_var: Tensor
    past_weight: Tensor  # (window - 1, C, fan-in), as the two derivatives by the weight; torch lays out more axes anew
    past_mean_slope: Tensor
    past_var_slope: Tensor

    def __init__(self, num_features: int, dims: int, option: "CrossIteration", source: Any):
        super().__init__("cross_iteration", num_features, dims, option.eps, option.momentum)
        self.option = option
        self.source = (source,)  # in a tuple, so that the convolution does not become this layer's child
        if source is not None and option.window > 1:
            for name in ("past_mean", "past_var"):
                self.register_buffer(name, torch.zeros(option.window - 1, num_features))
            for name in ("past_weight", "past_mean_slope", "past_var_slope"):
                self.register_buffer(name, torch.zeros(option.window - 1, num_features, source.weight[0].numel()))

    @leaf
    def forward(self, x: Tensor) -> Tensor:  # (N, C, *space) -> the same
        self.check_input(x)
        if not self.training:
            return self.evaluate(x)
        check_first_pass(self.name)
        batches: Tensor | int = 1  # how many batches the statistics are of
        (source,) = self.source
        whole = [x.shape[0]]
        way, mean, var = moments(x, whole)
        if source is not None and self.option.window > 1:
            of_batch = mean.detach(), var.detach()
            mean, var, batches = self._with_the_past(mean, var, source.weight.detach())
            seen = source.input_of(x)
            if seen is not None:
                self._remember(source, *of_batch, *_slopes(source, seen, x, of_batch[0]))
            elif not source.training and not source.weight.requires_grad:
                # Its weight does not move, so no derivative by it is missed, but by the first batches after a thaw.
                self._remember(source, *of_batch)
            elif not recomputing():  # there the layer before may lie outside, and what is remembered is thrown away
                raise ValueError(
                    f"norm=cross_iteration: an input that does not come right from {source}, which was made before the "
                    "norm: in the network, make each norm right after the layer that it follows, and let both train"
                )
        self.track(mean[0].detach(), unbiased(var, x, whole, batches)[0].detach())
        return affine_map(x, way, whole, mean, self.weight * (var + self._eps).rsqrt(), self.bias)

    def _with_the_past(self, mean: Tensor, var: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (1, C) of the window's batches, and how many they are.

        Those of past batches are what they would be with `weight`.
        The paper averages E[x²] and takes off the square of the averaged mean; here, what is the same, σ² are averaged
        and the variance of the means is added, so that nothing cancels.
        """
        change = weight.flatten(1) - self.past_weight
        shift = (self.past_mean_slope * change).sum(2)
        growth = (self.past_var_slope * change).sum(2)
        means = torch.cat([mean, self.past_mean + shift])
        variances = torch.cat([var, (self.past_var + growth - shift.square()).clamp(min=0)])
        past = torch.where(self.num_batches_tracked >= self.option.start, self.num_batches_tracked, 0)
        taken = (torch.arange(self.option.window, device=mean.device) <= past).to(mean).unsqueeze(1)
        batches = taken.sum()
        shares = taken / batches
        pooled = (shares * means).sum(0, keepdim=True)
        return pooled, (shares * (variances + (means - pooled).square())).sum(0, keepdim=True), batches

    @torch.no_grad()
    def _remember(self, source: Any, mean: Tensor, var: Tensor, mean_slope: Any = 0, var_slope: Any = 0) -> None:
        """Puts this batch's statistics, and their derivatives by the weight, in the place of the oldest."""
        newest = {
            "mean": mean[0],
            "var": var[0],
            "weight": source.weight.flatten(1),
            "mean_slope": mean_slope,
            "var_slope": var_slope,
        }
        for name, value in newest.items():
            past = self.get_buffer(f"past_{name}")
            past.copy_(torch.cat([torch.as_tensor(value).to(past).expand_as(past[:1]), past[:-1]]))


@torch.no_grad()
def _slopes(source: Any, seen: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives (C, fan-in) of the mean and variance of `x` by the weight of `source`, whose input is `seen`."""
    seen = seen.to(mean)
    values = x.numel() // mean.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        of_mean = source.weight_gradient(seen, torch.full_like(x, 1 / values, dtype=mean.dtype))
        of_var = source.weight_gradient(seen, (x - per_channel(mean, x)) * (2 / values))
    return of_mean.flatten(1), of_var.flatten(1)


class LastMade:
    """The layer that an option has made last, which the next norm comes after.

    The option remembers it, though it is frozen otherwise: a network asks its option first for a layer and then for a
    norm, and the contract of norms hands nothing from the one call to the other. So an option makes one network at a
    time.
    """

    layer: Any = None

    def note(self, layer: Any) -> Any:
        self.layer = layer
        return layer


@dataclass(frozen=True)
class CrossIteration(Norm):
    """y = γ (x - μ) / √(σ² + ε) + β with μ, σ² over space and the last `window` batches; input (N, C, *space).

    A past batch's mean and variance are carried over to the weights of now by their derivatives with respect to the
    weight of the layer right before the norm, at the time of that batch. The gradient flows through this batch's
    statistics only. Up to batch `start` the window is 1, which is batch norm, as it is for a layer that no layer of
    `norm.conv2d` or `norm.linear` with as many outputs was made before. Running statistics follow the window's, and
    evaluation is batch norm's. State: as `nn.BatchNorm*d`, and the past batches' statistics, weights and derivatives,
    three times `window - 1` the weight. Helps where batches are of one to four samples; does not help where they are
    large, nor with high learning rates, at which weights move too far for a derivative to tell.
    Raises ValueError for a convolution with another padding than zeros, given in numbers.

    Yao et al., Cross-Iteration Batch Normalization, 2020, arXiv:2002.05712.
    """

    window: int = 4
    start: int = 100
    eps: float = 1e-5
    momentum: float | None = 0.1
    last: LastMade = field(default_factory=LastMade, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"norm=cross_iteration: window={self.window} holds no batch")

    @property
    def name(self) -> str:
        return "cross_iteration"

    def conv2d(self, *args: Any, **kwargs: Any) -> nn.Module:
        conv = LinkedConv2d(*args, **kwargs)
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            padding = f"padding={conv.padding}, padding_mode={conv.padding_mode}"
            raise ValueError(f"norm=cross_iteration: a convolution with {padding}; give numbers, and pad with zeros")
        return self.last.note(conv)

    def linear(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self.last.note(LinkedLinear(*args, **kwargs))

    def order(self, order: str) -> Order:
        if order == "act_norm":
            raise ValueError(
                "model.order=act_norm: norm=cross_iteration needs the layer it follows right before it; use norm_act"
            )
        return super().order(order)

    def layer(self, num_features: int, dims: int) -> nn.Module:
        source = self.last.layer
        if source is None or len(source.weight) != num_features:
            return CrossIterationLayer(num_features, dims, self, None)
        self.last.note(None)  # another norm, with no layer of its own, does not come after it
        return CrossIterationLayer(num_features, dims, self, source)
