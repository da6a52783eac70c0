"""Internal covariate shift: what a layer's gradient becomes when the layers before it have taken their step."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from normlab.data.common.seeds import mix
from normlab.doctor.samples import Batch
from normlab.errors import ConfigError
from normlab.runner.measures.common.finished import FinishedRun
from normlab.runner.measures.common.networks import Networks, weights

STEPS = 20
PASSES = 100  # about as many passes are made; a deep network takes fewer steps for it
WORST = 10.0  # where the first step has no finite gradients


def measure(run: FinishedRun) -> float:
    """‖G - G'‖ / ‖G‖, averaged over layers and over the first steps of training, at most 20.

    G is the gradient of a layer's weight for a batch, and G' that of the same weight and batch once all parameters
    registered before it have taken their step. Layers are convolutions and linear layers but for the first, which has
    none before it. Steps are those of plain SGD at the run's learning rate, from its initial weights; noise and dropout
    are alike in G and G'. Steps end where a gradient is not finite; where that is the first one, the measure is the
    number 10. Raises ConfigError for a network with a single layer, for an optimizer without lr, and as `Networks`.

    Santurkar, Tsipras, Ilyas & Mądry, How Does Batch Normalization Help Optimization?, 2018, arXiv:1805.11604,
    definition 2.1, which has the difference alone; divided by ‖G‖, networks with gradients of other sizes compare.
    """
    networks = run.networks
    network, lr = networks.at_start(), networks.rate()
    if len(weights(network)) < 2:
        raise ConfigError(f"{run.name} has a network of a single layer, which no other can shift")
    batches = networks.training_batches(max(1, min(STEPS, PASSES // len(weights(network)))))
    seeds = (mix("covariate_shift", networks.config.seed, step) for step in range(len(batches)))
    ratios: list[float] = []
    for batch, seed in zip(batches, seeds, strict=True):
        of_step = [*_step(networks, network, batch, lr, seed)]
        if not all(map(math.isfinite, of_step)):
            break
        ratios += of_step
    return fmean(ratios) if ratios else WORST


def _step(networks: Networks, network: nn.Module, batch: Batch, lr: float, seed: int) -> Iterator[float]:
    """Takes a step, and gives the ratio of each layer but the first on the way."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    layers = {*weights(network)[1:]}
    buffers = [buffer.clone() for buffer in network.buffers()]
    torch.manual_seed(seed)
    gradients = networks.gradients(network, batch, parameters)
    moved = [buffer.clone() for buffer in network.buffers()]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter in layers:
            _put(network.buffers(), buffers)
            torch.manual_seed(seed)
            after = networks.gradients(network, batch, [parameter])[0]
            yield ((gradient - after).norm() / gradient.norm()).item()
        parameter.data.sub_(gradient, alpha=lr)
    _put(network.buffers(), moved)


@torch.no_grad()
def _put(places: Iterator[Tensor], values: Sequence[Tensor]) -> None:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
