"""How evenly the first gradients reach the layers of a network."""

import math
from statistics import fmean

from torch import nn

from normlab.callbacks.epoch_seed import seed_epoch
from normlab.doctor.samples import Batch
from normlab.runner.measures.common.finished import FinishedRun
from normlab.runner.measures.common.networks import Networks, weights

BATCHES = 5
WORST = 10.0  # where there is no ratio


def measure(run: FinishedRun) -> float:
    """|log10 of ‖gradient of the first weight‖ / ‖gradient of the last weight‖|, before the first step of training.

    It is the mean over the first five training batches. Weights are those of convolutions and linear layers, in the
    order in which they were registered. Of a batch that leaves one of them a gradient that is zero or not finite it is
    the number 10. Raises ConfigError as `Networks`.
    """
    networks = run.networks
    network = networks.at_start()
    seed_epoch(networks.config.seed, 0, 0)
    return fmean(_imbalance(networks, network, batch) for batch in networks.training_batches(BATCHES))


def _imbalance(networks: Networks, network: nn.Module, batch: Batch) -> float:
    of = weights(network)
    first, last = (gradient.norm().item() for gradient in networks.gradients(network, batch, [of[0], of[-1]]))
    if not (first > 0 and last > 0 and math.isfinite(first) and math.isfinite(last)):
        return WORST
    return abs(math.log10(first / last))
