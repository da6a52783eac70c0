"""Adaptive gradient clipping, for networks without normalization."""

import logging
from collections.abc import Sequence

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from normlab.errors import ConfigError
from normlab.models.common.head import head

log = logging.getLogger(__name__)

LEAST_GRADIENT = 1e-6  # keeps the factor of a zero gradient finite


class AdaptiveGradientClipping(Callback):
    """g ← g min(1, λ max(|w|, ε) / |g|) for each unit, with λ = `clipping`, before each optimizer step.

    A unit is a row of a dense layer, a filter of a convolution, or a whole vector such as a bias. Layers named in
    `exclude` are left alone; None excludes the output layer (`normlab.models.common.head`), as the paper does. The
    gradient is unscaled, of all accumulated batches, and not yet clipped by `trainer.gradient_clip_val`. It does not
    help networks with norms, where the scale of the weights has no meaning. Raises ConfigError for a layer that is not
    there.

    Brock, De, Smith & Simonyan, High-Performance Large-Scale Image Recognition Without Normalization, 2021,
    arXiv:2102.06171.
    """

    def __init__(self, clipping: float = 0.01, eps: float = 1e-3, exclude: Sequence[str] | None = None):
        if clipping <= 0 or eps <= 0:
            raise ValueError(f"callbacks.agc: clipping={clipping} and eps={eps} must be above 0")
        if isinstance(exclude, str) or not isinstance(exclude, Sequence | None):
            raise ValueError(f"callbacks.agc.exclude={exclude}: expected null or a list of layers, such as [fc1]")
        self.clipping, self.eps, self.exclude = clipping, eps, exclude
        self.excluded: set[Tensor] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.network
        assert isinstance(network, nn.Module)
        layers = dict(network.named_modules())
        names = _heads(network) if self.exclude is None else self.exclude
        for name in names:
            if name not in layers:
                known = ", ".join(name for name in layers if name)
                raise ConfigError(f"callbacks.agc.exclude: the network has no layer {name} (layers: {known})")
        self.excluded = {parameter for name in names for parameter in layers[name].parameters()}
        log.info(f"adaptive gradient clipping of all layers except {', '.join(names) or 'none'}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in self.excluded:
                    clip(parameter, self.clipping, self.eps)


@torch.no_grad()
def clip(parameter: Tensor, clipping: float, eps: float) -> None:
    """Clips the gradient of one parameter, unit by unit."""
    gradient = parameter.grad
    assert gradient is not None
    most = unit_norms(parameter).clamp(min=eps) * clipping  # not in place: FSDP's sharded vectors do not support that
    gradient.mul_((most / unit_norms(gradient).clamp(min=LEAST_GRADIENT)).clamp(max=1))


def unit_norms(x: Tensor) -> Tensor:
    """The norm of each x[i], as (len(x), 1, …); for a vector or a single number the norm of the whole."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    return torch.linalg.vector_norm(x, dim=axes, keepdim=True)


def _heads(network: nn.Module) -> list[str]:
    """The names of the layers that give the outputs; a network may have several heads."""
    try:
        parts = {*head(network).modules()}
    except ValueError as error:
        raise ConfigError(
            f"{error}; or name the layers that are not clipped in callbacks.agc.exclude, [] for none"
        ) from error
    named = network.named_modules()
    return [name for name, module in named if module in parts and any(True for _ in module.parameters(recurse=False))]
